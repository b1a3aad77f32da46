//! The committed vectors, held against the codec.

use super::read;
use crate::wire::build;
use serde_json::Value;
use std::collections::BTreeMap;
use vortex_p2p::wire::{
    Algorithm, DecodeError, Decoder, Digest, DigestClaim, DigestError, Division, Field, FieldValue, Message,
    Packet, PieceLength, annotate,
};

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    super::model::hex(bytes)
}

/// The bytes of a vector, a step or a field.
fn expand(formula: &Value) -> Vec<u8> {
    let number = |part: &Value, name: &str| usize::try_from(part[name].as_u64().unwrap()).unwrap();
    let mut bytes = Vec::new();
    for part in formula.as_array().unwrap() {
        if let Some(text) = part["hex"].as_str() {
            bytes.extend(unhex(text));
        } else if let Some(text) = part["repeat"].as_str() {
            bytes.extend(unhex(text).repeat(number(part, "times")));
        } else {
            let (start, step) = (number(part, "start"), number(part, "step"));
            bytes.extend((0..number(part, "count")).map(|at| (start + at * step) as u8));
        }
    }
    bytes
}

fn bytes_of(vector: &Value) -> Vec<u8> {
    match vector["hex"].as_str() {
        Some(text) => unhex(text),
        None if vector["formula"].is_array() => expand(&vector["formula"]),
        None => Vec::new(),
    }
}

fn text<'a>(vector: &'a Value, name: &str) -> &'a str {
    vector[name].as_str().unwrap_or_else(|| panic!("{name} of {vector}"))
}

/// What a decoder makes of the first packet of these chunks.
fn decode<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<u8>, &'static str> {
    let mut decoder = Decoder::new();
    for mut chunk in chunks {
        match decoder.decode(&mut chunk) {
            Ok(Some(packet)) => {
                let mut bytes = Vec::new();
                packet.encode(&mut bytes);
                return Ok(bytes);
            }
            Ok(None) => assert!(chunk.is_empty()),
            Err(error) => return Err(error.name()),
        }
    }
    Err(decoder.finish().map_or_else(|error| error.name(), |()| "nothing"))
}

#[test]
fn packets() {
    for vector in read("packets") {
        let id = text(&vector, "id");
        let bytes = bytes_of(&vector);
        let annotated = annotate(&bytes);
        let verdict = annotated.packet.map_err(|error| error.name());
        match text(&vector, "result") {
            "invalid" => assert_eq!(verdict.unwrap_err(), text(&vector, "error"), "{id}"),
            result => {
                let packet = verdict.unwrap_or_else(|error| panic!("{id}: {error}"));
                assert!(annotated.rest().is_empty(), "{id}");
                same_fields(id, &annotated.fields, vector["fields"].as_array().unwrap());
                let mut again = Vec::new();
                packet.encode(&mut again);
                if result == "valid" {
                    assert_eq!(again, bytes, "{id} can be sent");
                }
            }
        }
        // The same from a stream, which cannot know that nothing may follow: whole, in two parts, byte by byte.
        let whole = match Packet::decode(&bytes) {
            Ok((packet, _)) => {
                let mut again = Vec::new();
                packet.encode(&mut again);
                Ok(again)
            }
            Err(_) if bytes.is_empty() => Err("nothing"),
            Err(error) => Err(error.name()),
        };
        assert_eq!(decode([&bytes[..]]), whole, "{id}");
        assert_eq!(decode(bytes.chunks(1)), whole, "{id}, byte by byte");
        let step = (bytes.len() / 500).max(1);
        for at in (0..=bytes.len()).step_by(step) {
            assert_eq!(decode([&bytes[..at], &bytes[at..]]), whole, "{id}, split at {at}");
        }
        if vector["flags"].to_string().contains("early") {
            let error = Packet::decode(&bytes[..6]).unwrap_err();
            assert!(!matches!(error, DecodeError::Truncated { .. }), "{id} is judged with its header");
        }
    }
}

fn same_fields(id: &str, found: &[Field<'_>], expected: &[Value]) {
    assert_eq!(found.len(), expected.len(), "{id}");
    for (field, expected) in found.iter().zip(expected) {
        let place = (field.offset as u64, field.length as u64, field.name);
        let listed = (&expected["offset"], &expected["length"], &expected["name"]);
        assert_eq!(
            place,
            (listed.0.as_u64().unwrap(), listed.1.as_u64().unwrap(), listed.2.as_str().unwrap())
        );
        let value = &expected["value"];
        let same = match field.value {
            _ if value.is_array() => match field.value {
                FieldValue::Text(text) => text.as_bytes() == expand(value),
                FieldValue::Bytes(bytes) => bytes == expand(value),
                _ => false,
            },
            FieldValue::Number(number) => *value == number,
            FieldValue::Unsigned(number) => *value == *number.to_string(),
            FieldValue::Signed(number) => *value == *number.to_string(),
            FieldValue::Text(text) => *value == text,
            FieldValue::Bytes(bytes) => *value == hex(bytes),
        };
        assert!(same, "{id}: {field:?} is not {value}");
    }
}

//= VTX-DIG-002 test
#[test]
fn digests() {
    for vector in read("digests") {
        let id = text(&vector, "id");
        let content = bytes_of(&vector);
        if let Some(sent) = vector["sent"].as_str() {
            let algorithm: Algorithm = text(&vector, "algorithm").parse().unwrap();
            assert_eq!(Digest::of(algorithm, &content).to_string(), sent, "{id}");
            continue;
        }
        let claim = DigestClaim::parse(text(&vector, "text"));
        let result = match claim {
            Ok(_) => "known",
            Err(DigestError::Malformed) => "malformed",
            Err(DigestError::Empty) => "empty",
            Err(DigestError::UnknownAlgorithm) => "unknown-algorithm",
        };
        assert_eq!(result, text(&vector, "result"), "{id}");
        let Ok(claim) = claim else { continue };
        let mut readings = match claim {
            DigestClaim::Crc32 { decimal, hexadecimal } => {
                [decimal, hexadecimal].into_iter().flatten().map(|sum| format!("{sum:08x}")).collect()
            }
            DigestClaim::Sha256(hash) => vec![hex(&hash)],
            DigestClaim::Sha512(hash) => vec![hex(&hash)],
        };
        readings.sort();
        readings.dedup();
        assert_eq!(Value::from(readings), vector["readings"], "{id}");
        if let Some(matches) = vector["matches"].as_bool() {
            assert_eq!(claim.matches(&Digest::of(claim.algorithm(), &content)), matches, "{id}");
        }
    }
}

#[test]
fn divisions() {
    for vector in read("divisions") {
        let id = text(&vector, "id");
        let number = |of: &Value, name: &str| text(of, name).parse::<u64>().unwrap();
        let (length, piece_length) = (number(&vector, "length"), number(&vector, "piece_length"));
        let division = PieceLength::try_from(piece_length)
            .map_err(|error| error.to_string())
            .and_then(|piece| Division::new(length, piece).map_err(|error| error.to_string()));
        if vector["default"] == true {
            assert_eq!(Ok(Division::by_default(length).unwrap()), division, "{id}");
        }
        if text(&vector, "result") == "invalid" {
            assert!(division.is_err(), "{id}");
            continue;
        }
        let division = division.unwrap();
        assert_eq!(division.pieces(), number(&vector, "pieces"), "{id}");
        let places = vector["places"].as_array().unwrap();
        for place in places {
            let span = division.piece(place["number"].as_u64().unwrap() as u32).unwrap();
            assert_eq!(
                (span.offset, u64::from(span.length)),
                (number(place, "offset"), number(place, "length")),
                "{id}"
            );
        }
        let last = &places[places.len() - 1];
        assert_eq!(last["number"].as_u64().unwrap() + 1, division.pieces(), "{id}");
        assert_eq!(number(last, "offset") + number(last, "length"), length, "{id}");
    }
}

/// What one direction of a stream or connection carries, and whether it ended in order.
#[derive(Default)]
struct Direction {
    bytes: Vec<u8>,
    ends: Vec<String>,
}

/// Every session is consistent with itself: a client that is no more than the codec, driven by the bytes of the
/// server, comes to the outcomes that are listed.
#[test]
fn sessions() {
    for vector in read("sessions") {
        let id = text(&vector, "id");
        let mut directions: BTreeMap<(String, u64), Direction> = BTreeMap::new();
        let mut lost = false;
        for step in vector["steps"].as_array().unwrap() {
            let bytes = bytes_of(step);
            if let Some(split) = step["split"].as_array() {
                let sum: u64 = split.iter().map(|part| part.as_u64().unwrap()).sum();
                assert_eq!(sum, bytes.len() as u64, "{id}: {step}");
            }
            assert_eq!(
                step["stream"].is_u64(),
                text(&vector, "transport") == "quic" && step["end"] != "close",
                "{id}"
            );
            lost |= step["end"] == "close";
            let stream = step["stream"].as_u64().unwrap_or_default();
            let direction = directions.entry((text(step, "from").to_owned(), stream)).or_default();
            direction.bytes.extend(bytes);
            direction.ends.extend(step["end"].as_str().map(str::to_owned));
        }
        let requests = vector["expect"]["requests"].as_array().unwrap();
        let mut by_stream: BTreeMap<u64, Vec<&Value>> = BTreeMap::new();
        for request in requests {
            by_stream.entry(request["stream"].as_u64().unwrap_or_default()).or_default().push(request);
        }
        for (stream, requests) in by_stream {
            let none = Direction::default();
            let direction = |from: &str| directions.get(&(from.to_owned(), stream)).unwrap_or(&none);
            check_requests(id, &direction("client").bytes, &requests);
            let quic = text(&vector, "transport") == "quic";
            check_outcomes(id, direction("server"), &requests, quic, lost);
        }
    }
}

/// The requests that are named are those of the client's packets that decode, in order.
fn check_requests(id: &str, mut bytes: &[u8], requests: &[&Value]) {
    let mut decoder = Decoder::new();
    let mut sent = Vec::new();
    loop {
        match decoder.decode(&mut bytes) {
            Ok(Some(Packet { message: Message::Download(download), .. })) => {
                sent.push((download.kind.name(), download.task_id.to_string(), u64::from(download.number)));
            }
            Ok(Some(_)) => {}
            Err(error) if error.is_recoverable() => {}
            Ok(None) | Err(_) => break,
        }
    }
    let named: Vec<_> = requests
        .iter()
        .filter(|request| request["task_id"].is_string())
        .map(|request| {
            (text(request, "kind"), text(request, "task_id").to_owned(), request["number"].as_u64().unwrap())
        })
        .collect();
    assert!(sent.starts_with(&named), "{id}: {sent:?} do not begin with {named:?}");
}

fn check_outcomes(id: &str, server: &Direction, requests: &[&Value], quic: bool, lost: bool) {
    let mut input = &server.bytes[..];
    let mut going_away = false;
    for request in requests {
        let found = if going_away {
            ("going-away".to_owned(), String::new())
        } else {
            answer(&mut input, request, server, quic, lost)
        };
        going_away |= found.0 == "going-away";
        let detail = match text(request, "outcome") {
            "piece" | "unverified" => text(request, "sha256").to_owned(),
            "error" => format!("{} {}", request["code"], request["message"].as_str().unwrap_or_default()),
            "rejected" => text(request, "reason").to_owned(),
            _ => String::new(),
        };
        assert_eq!(found, (text(request, "outcome").to_owned(), detail), "{id}");
    }
}

/// The outcome of one request, and what is said with it.
fn answer(
    input: &mut &[u8],
    request: &Value,
    server: &Direction,
    quic: bool,
    lost: bool,
) -> (String, String) {
    let outcome = |name: &str, detail: &str| (name.to_owned(), detail.to_owned());
    let rejected = |reason: &str| outcome("rejected", reason);
    let reset = server.ends.iter().any(|end| end == "reset");
    if input.is_empty() {
        return if reset { rejected("reset") } else { outcome("no-answer", "") };
    }
    let (packet, rest) = match Packet::decode(input) {
        Ok(decoded) => decoded,
        Err(error) => return rejected(error.name()),
    };
    *input = rest;
    let (kind, metadata) = match packet.message {
        Message::Close => return outcome("going-away", ""),
        Message::Error(error) => {
            return outcome("error", &format!("{} {}", u8::from(error.code), error.message.as_str()));
        }
        Message::Content(kind, metadata) => (kind, metadata),
        _ => return rejected("wrong-tag"),
    };
    if kind.name() != text(request, "kind") {
        return rejected("wrong-tag");
    }
    if u64::from(metadata.number) != request["number"] {
        return rejected("wrong-number");
    }
    if request["piece_length"].as_str().is_some_and(|known| known != metadata.length.to_string()) {
        return rejected("wrong-length");
    }
    let claim = match DigestClaim::parse(metadata.digest.as_str()) {
        Ok(claim) => Some(claim),
        Err(DigestError::Malformed) => return rejected("bad-digest"),
        Err(_) if request["lenient"] == true => None,
        Err(DigestError::Empty) => return rejected("no-digest"),
        Err(DigestError::UnknownAlgorithm) => return rejected("unknown-digest"),
    };
    let Some((content, rest)) = input.split_at_checked(metadata.length.get() as usize) else {
        return match (reset, lost) {
            (true, _) => rejected("reset"),
            (_, true) => outcome("lost", ""),
            _ => rejected("incomplete"),
        };
    };
    *input = rest;
    let Digest::Sha256(sha256) = Digest::of(Algorithm::Sha256, content) else { unreachable!() };
    match claim {
        Some(claim) if !claim.matches(&Digest::of(claim.algorithm(), content)) => rejected("digest-mismatch"),
        _ if quic && !rest.is_empty() => rejected("extra-bytes"),
        Some(_) => outcome("piece", &hex(&sha256)),
        None => outcome("unverified", &hex(&sha256)),
    }
}

/// The layouts of the property tests and those of the vectors are written apart; where both lay out the same packet they
/// agree.
#[test]
fn two_layouts_agree() {
    let task_id = super::packets::TASK.as_bytes();
    let vectors = read("packets");
    let of = |id: &str| bytes_of(vectors.iter().find(|vector| vector["id"] == id).unwrap());
    assert_eq!(of("pkt-download-003"), build::download(2, 0x04, task_id, 258));
    assert_eq!(of("pkt-error-002"), build::error(9, 2, b"no such piece"));
    assert_eq!(of("pkt-close-001"), build::packet(0, 0xFE, &[]));
    let raw = build::RawContent {
        id: 5,
        number: 1,
        offset: 4_194_304,
        parent_id: b"10.0.0.7-peer-a".to_vec(),
        created_at: 1_767_225_600,
        ..build::RawContent::default()
    };
    assert_eq!(of("pkt-content-001"), raw.bytes());
}
