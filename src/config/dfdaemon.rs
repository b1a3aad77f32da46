//! Which keys the file has, and what they set.

use super::reader::{Findings, Section, read_root};
use super::{
    Checked, Config, Download, Endpoint, Gc, Protocol, Storage, StorageServer, TlsFiles, Upload, yaml,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(super) fn check(text: &str) -> Checked {
    let mut config = Config::default();
    let mut findings = Findings::default();
    match yaml::parse(text) {
        Ok(node) => read_root(&node, &mut findings, |root| read_config(root, &mut config)),
        Err(problem) => findings.problems.push(problem),
    }
    findings.problems.sort_by_key(|problem| problem.at);
    findings.unused.sort_by_key(|unused| unused.at);
    Checked { config, problems: findings.problems, unused: findings.unused }
}

fn read_config(root: &mut Section<'_>, config: &mut Config) {
    // First, since it decides which addresses the servers bind.
    let mut ipv6 = false;
    root.section("network", |network| network.read("enableIPv6", &mut ipv6));
    let any: IpAddr = if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    config.storage.server.ip = any;
    config.upload.server.ip = any;
    config.metrics.ip = any;

    let mut proposed = None;
    root.section("storage", |storage| read_storage(storage, &mut config.storage, &mut proposed));
    config.download.protocol = proposed.unwrap_or(config.download.protocol);
    root.section("download", |download| read_download(download, &mut config.download, proposed));
    root.section("upload", |upload| read_upload(upload, &mut config.upload));
    root.section("metrics", |metrics| {
        metrics.section("server", |server| read_endpoint(server, &mut config.metrics))
    });
    root.section("gc", |gc| read_gc(gc, &mut config.gc));
    root.elsewhere(&[
        "backend",
        "dynconfig",
        "health",
        "host",
        "log",
        "manager",
        "proxy",
        "scheduler",
        "security",
        "seedPeer",
        "server",
        "stats",
        "tracing",
        "verbose",
    ]);
}

fn read_storage(storage: &mut Section<'_>, into: &mut Storage, protocol: &mut Option<Protocol>) {
    storage.read("dir", &mut into.dir);
    into.keep = storage.optional("keep");
    // The sizes of this store's buffers were measured; they are not settings.
    storage.elsewhere(&[
        "cacheCapacity",
        "readBufferSize",
        "writeBufferSize",
        "writePieceTimeout",
        "writebackMode",
    ]);
    storage.section("server", |server| {
        *protocol = server.optional("protocol");
        read_storage_server(server, &mut into.server);
    });
}

fn read_storage_server(server: &mut Section<'_>, into: &mut StorageServer) {
    server.read("ip", &mut into.ip);
    server.read("tcpPort", &mut into.tcp_port);
    server.elsewhere(&["tcpFastopen"]);
    let deployed: Option<u16> = server.optional("quicPort");
    let mut proposed = None;
    server.section("quic", |quic| {
        proposed = quic.optional("port");
        quic.read("buffer_size", &mut into.quic.buffer_size);
        quic.read("idle_timeout", &mut into.quic.idle_timeout);
        quic.read("max_connections", &mut into.quic.max_connections);
    });
    if let (Some(deployed), Some(proposed)) = (deployed, proposed)
        && deployed != proposed
    {
        server.conflict("quicPort", format!("is {deployed}, but quic.port is {proposed}: keep one of them"));
    }
    into.quic.port = deployed.or(proposed).unwrap_or(into.quic.port);
}

fn read_download(download: &mut Section<'_>, into: &mut Download, proposed: Option<Protocol>) {
    if let Some(protocol) = download.optional("protocol") {
        if let Some(proposed) = proposed
            && proposed != protocol
        {
            let message =
                format!("is {protocol}, but storage.server.protocol is {proposed}: keep one of them");
            download.conflict("protocol", message);
        }
        into.protocol = protocol;
    }
    download.read("pieceTimeout", &mut into.piece_timeout);
    download.read("concurrentPieceCount", &mut into.concurrent_piece_count);
    // Earlier releases said rateLimit.
    download.read("rateLimit", &mut into.bandwidth_limit);
    download.read("bandwidthLimit", &mut into.bandwidth_limit);
    download.elsewhere(&[
        "server",
        "backToSourceBandwidthLimit",
        "backToSourceConcurrentPieceCount",
        "collectedPieceTimeout",
    ]);
}

fn read_upload(upload: &mut Section<'_>, into: &mut Upload) {
    upload.read("rateLimit", &mut into.bandwidth_limit);
    upload.read("bandwidthLimit", &mut into.bandwidth_limit);
    upload.section("server", |server| {
        read_endpoint(server, &mut into.server);
        into.server_tls = read_tls(server);
        server.read("requestRateLimit", &mut into.request_rate_limit);
        server.elsewhere(&["requestBufferSize"]);
    });
    upload.section("client", |client| into.client_tls = read_tls(client));
    upload.elsewhere(&["disableShared"]);
}

fn read_gc(gc: &mut Section<'_>, into: &mut Gc) {
    gc.read("interval", &mut into.interval);
    gc.section("policy", |policy| {
        policy.read("taskTTL", &mut into.task_ttl);
        // Some releases say dist.
        policy.read("distHighThresholdPercent", &mut into.disk_high);
        policy.read("distLowThresholdPercent", &mut into.disk_low);
        policy.read("diskHighThresholdPercent", &mut into.disk_high);
        policy.read("diskLowThresholdPercent", &mut into.disk_low);
        policy.elsewhere(&["distThreshold", "diskThreshold"]);
        if into.disk_low > into.disk_high {
            let message = format!("is {}, but the high threshold is {}", into.disk_low, into.disk_high);
            policy.conflict("diskLowThresholdPercent", message);
        }
    });
}

fn read_endpoint<const PORT: u16>(server: &mut Section<'_>, into: &mut Endpoint<PORT>) {
    server.read("ip", &mut into.ip);
    server.read("port", &mut into.port);
}

/// All three files or none. A deployed daemon takes one or two for none, and so runs unprotected without a word.
fn read_tls(section: &mut Section<'_>) -> Option<TlsFiles> {
    const KEYS: [&str; 3] = ["caCert", "cert", "key"];
    match KEYS.map(|key| section.optional(key)) {
        [Some(ca_cert), Some(cert), Some(key)] => Some(TlsFiles { ca_cert, cert, key }),
        files => {
            let given: Vec<_> = KEYS.iter().zip(&files).filter(|(_, file)| file.is_some()).collect();
            if let Some((key, _)) = given.first() {
                section.conflict(
                    key,
                    "caCert, cert and key belong together: without all three nothing is protected",
                );
            }
            None
        }
    }
}
