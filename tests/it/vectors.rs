//! `spec/vectors`: written from layouts that the encoder has no part in, and held against the codec as they are read.

mod check;
mod model;
mod packets;
mod sessions;
mod values;

use crate::committed;
use crate::spec::requirement;
use model::Vector;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The files: kind, what it says about itself, vectors.
fn files() -> [(&'static str, &'static str, Vec<Vector>); 4] {
    [
        (
            "packets",
            "Buffers that are to hold exactly one packet. Each of up to 64 KiB is also there as packets/ID.bin.",
            packets::all(),
        ),
        (
            "digests",
            "Digests: what a Server sends for a content, what a Client makes of a text.",
            values::digests(),
        ),
        ("divisions", "Tasks and their pieces.", values::divisions()),
        ("sessions", "Whole connections, byte by byte in both directions.", sessions::all()),
    ]
}

/// The vectors of a kind as they are committed.
fn read(kind: &str) -> Vec<Value> {
    let file = committed::read(&format!("spec/vectors/{kind}.json"));
    let file: Value = serde_json::from_str(&file).unwrap();
    file["vectors"].as_array().unwrap().clone()
}

fn requirements_of(vector: &Value) -> impl Iterator<Item = &str> {
    vector["requirements"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

#[test]
fn committed_vectors_are_those_of_their_sources() {
    let mut bins = BTreeSet::new();
    for (kind, description, vectors) in files() {
        committed::check(&format!("spec/vectors/{kind}.json"), &model::file(kind, description, &vectors));
        for Vector { id, bytes, .. } in &vectors {
            let Some(bytes) = bytes.as_ref().filter(|bytes| bytes.len() <= 64 << 10) else { continue };
            let name = format!("spec/vectors/packets/{id}.bin");
            if committed::regenerating() {
                std::fs::write(committed::path(&name), bytes).unwrap();
            }
            assert!(std::fs::read(committed::path(&name)).is_ok_and(|found| found == *bytes), "{name}");
            bins.insert(format!("{id}.bin"));
        }
    }
    for entry in std::fs::read_dir(committed::path("spec/vectors/packets")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(bins.contains(&name), "{name} belongs to no vector");
    }
}

#[test]
fn ids_are_unique_and_requirements_exist() {
    let known: BTreeSet<String> = requirement::all().into_iter().map(|requirement| requirement.id).collect();
    let mut ids = BTreeSet::new();
    for (kind, ..) in files() {
        for vector in read(kind) {
            let id = vector["id"].as_str().unwrap();
            assert!(id.starts_with(&kind[..3]) || kind == "packets" && id.starts_with("pkt"), "{id}");
            assert!(ids.insert(id.to_owned()), "{id} is given out twice");
            let mut listed = BTreeSet::new();
            for requirement in requirements_of(&vector) {
                assert!(known.contains(requirement), "{id} exercises {requirement}, which does not exist");
                assert!(listed.insert(requirement.to_owned()), "{id} lists {requirement} twice");
            }
        }
    }
    assert!(ids.len() >= 150, "only {} vectors", ids.len());
}

/// Requirements about bytes that no vector can show, and why.
const NOT_SHOWN: [(&str, &str); 7] = [
    ("VTX-REQ-015", "that a piece is not served before it is verified shows in time, not in bytes"),
    ("VTX-DIG-016", "what was known beforehand is not on the wire"),
    ("VTX-ERR-009", "takes a deadline"),
    ("VTX-ERR-010", "takes a store that fails"),
    ("VTX-ERR-011", "takes a piece that is damaged in the store"),
    ("VTX-ERR-012", "takes a deadline"),
    ("VTX-ERR-013", "nothing on the wire tells an Error packet within content from content"),
];

#[test]
fn every_requirement_about_bytes_has_a_vector() {
    let mut shown: BTreeMap<String, u32> = BTreeMap::new();
    for (kind, ..) in files() {
        for vector in read(kind) {
            requirements_of(&vector).for_each(|id| *shown.entry(id.to_owned()).or_default() += 1);
        }
    }
    let areas = ["FRM", "TAG", "REQ", "CNT", "DIG", "ERR", "CLS"];
    let missing: Vec<String> = requirement::all()
        .into_iter()
        .map(|requirement| requirement.id)
        .filter(|id| areas.contains(&&id[4..7]) && !shown.contains_key(id))
        .collect();
    let excused: Vec<&str> = NOT_SHOWN.iter().map(|(id, _)| *id).collect();
    let unexcused: Vec<_> = missing.iter().filter(|id| !excused.contains(&id.as_str())).collect();
    assert!(unexcused.is_empty(), "no vector, and no reason why not: {unexcused:?}");
    let needless: Vec<_> =
        excused.iter().filter(|id| !missing.iter().any(|missing| missing == *id)).collect();
    assert!(needless.is_empty(), "listed as not to be shown, and shown: {needless:?}");
}
