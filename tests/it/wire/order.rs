//! The decoding table: which check counts when several fail.

use super::build::{self, RawContent};
use vortex_p2p::wire::{DecodeError, Decoder, Packet, Tag};

/// A step of the table that can fail for a Content packet: how to make it fail, and as what.
struct Step {
    number: u8,
    spoil: fn(&mut Spoiled),
    fails: fn(&DecodeError) -> bool,
}

/// A packet under way to be refused. What ends the bytes or the value is done last.
#[derive(Clone)]
struct Spoiled {
    raw: RawContent,
    /// Bytes of the packet that arrive at most.
    arrives: usize,
    trailing: bool,
    /// Ends the value here: bytes after the digest, or after the parent id.
    after_digest: Option<usize>,
    after_parent_id: Option<usize>,
}

impl Spoiled {
    fn bytes(&self) -> Vec<u8> {
        let mut raw = self.raw.clone();
        let tail = 17 + raw.appended.len();
        if let Some(kept) = self.after_digest {
            raw.shortened = 4 + raw.parent_id.len() + tail - kept;
        } else if let Some(kept) = self.after_parent_id {
            raw.shortened = tail - kept;
        }
        let mut bytes = raw.bytes();
        if self.trailing {
            bytes.push(0);
        }
        bytes.truncate(self.arrives);
        bytes
    }
}

fn metadata_field(error: &DecodeError, name: &str) -> bool {
    matches!(error, DecodeError::BadMetadata { field } if *field == name)
}

const STEPS: [Step; 15] = [
    Step {
        number: 1,
        spoil: |packet| packet.arrives = packet.arrives.min(5),
        fails: |error| *error == DecodeError::Truncated { have: 5, need: 6 },
    },
    Step {
        number: 2,
        spoil: |packet| packet.raw.length = Some(16_385),
        fails: |error| matches!(error, DecodeError::TooLong { header } if header.length == 16_385),
    },
    Step {
        number: 3,
        spoil: |packet| packet.raw.length = Some(48),
        fails: |error| matches!(error, DecodeError::BadLength { length: 48, tag: Tag::Content(_) }),
    },
    Step {
        number: 4,
        spoil: |packet| packet.arrives = packet.arrives.min(60),
        fails: |error| matches!(error, DecodeError::Truncated { have: 60, .. }),
    },
    Step {
        number: 6,
        spoil: |packet| packet.raw.metadata_length = Some(50),
        fails: |error| metadata_field(error, "metadata length"),
    },
    Step {
        number: 7,
        spoil: |packet| packet.raw.piece_length = (1 << 30) + 1,
        fails: |error| *error == DecodeError::BadPieceLength { length: (1 << 30) + 1 },
    },
    Step {
        number: 8,
        spoil: |packet| packet.raw.digest_length = Some(10_000),
        fails: |error| metadata_field(error, "the digest"),
    },
    Step {
        number: 9,
        spoil: |packet| packet.raw.digest.resize(257, b'd'),
        fails: |error| {
            matches!(error, DecodeError::FieldTooLong { field: "the digest", length: 257, limit: 256 })
        },
    },
    Step {
        number: 10,
        spoil: |packet| packet.raw.digest[3] = 0xFF,
        fails: |error| *error == DecodeError::NotUtf8 { field: "the digest" },
    },
    Step {
        number: 11,
        spoil: |packet| packet.after_digest = Some(3),
        fails: |error| metadata_field(error, "the parent id"),
    },
    Step {
        number: 12,
        spoil: |packet| packet.raw.parent_id_length = Some(10_000),
        fails: |error| metadata_field(error, "the parent id"),
    },
    Step {
        number: 13,
        spoil: |packet| packet.raw.parent_id.resize(1025, b'p'),
        fails: |error| {
            matches!(error, DecodeError::FieldTooLong { field: "the parent id", length: 1025, limit: 1024 })
        },
    },
    Step {
        number: 14,
        spoil: |packet| packet.raw.parent_id[3] = 0xC0,
        fails: |error| *error == DecodeError::NotUtf8 { field: "the parent id" },
    },
    Step {
        number: 15,
        spoil: |packet| packet.after_parent_id = Some(16),
        fails: |error| metadata_field(error, "created at"),
    },
    Step {
        number: 17,
        spoil: |packet| packet.trailing = true,
        fails: |error| matches!(error, DecodeError::TrailingBytes { .. }),
    },
];

fn whole() -> Spoiled {
    // The digest is long enough that a value which ends after it still has an allowed Length.
    let raw = RawContent { digest: vec![b'd'; 90], ..RawContent::default() };
    Spoiled { raw, arrives: usize::MAX, trailing: false, after_digest: None, after_parent_id: None }
}

//= VTX-FRM-010 test
//= VTX-FRM-011 test
//= VTX-FRM-012 test
//= VTX-FRM-014 test
//= VTX-FRM-015 test
//= VTX-CNT-003 test
//= VTX-CNT-010 test
//= VTX-CNT-013 test
//= VTX-ERR-014 test
#[test]
fn each_step_fails_and_the_earlier_of_two_counts() {
    assert!(Packet::decode_exact(&whole().bytes()).is_ok());
    for (at, first) in STEPS.iter().enumerate() {
        let mut packet = whole();
        (first.spoil)(&mut packet);
        let alone = Packet::decode_exact(&packet.bytes()).unwrap_err();
        assert!((first.fails)(&alone), "step {}: {alone}", first.number);
        for second in &STEPS[at + 1..] {
            for order in [[first, second], [second, first]] {
                let mut packet = whole();
                for step in order {
                    (step.spoil)(&mut packet);
                }
                if (first.number, second.number) == (2, 3) {
                    // Both speak of Length: a Download packet shows that the limit is looked at first.
                    continue;
                }
                let bytes = packet.bytes();
                let error = Packet::decode_exact(&bytes).unwrap_err();
                let both = (first.number, second.number);
                assert!((first.fails)(&error), "of steps {both:?} the first has to count: {error}");
                if (6..=15).contains(&first.number) && second.number != 17 {
                    assert_eq!(Decoder::new().decode(&mut &bytes[..]).unwrap_err(), error);
                }
            }
        }
    }
}

/// Wherever a value ends, the error is that of the field that it ends in. A Content packet has a Length of 49 or more.
#[test]
fn a_value_that_ends_early_names_the_field_that_it_ends_in() {
    let raw = whole().raw;
    let digest = 28 + raw.digest.len();
    let parent_id = digest + 4 + raw.parent_id.len();
    let fields = [
        (digest, "the digest"),
        (parent_id, "the parent id"),
        (parent_id + 1, "traffic type"),
        (parent_id + 9, "cost"),
        (parent_id + 17, "created at"),
    ];
    let whole = parent_id + 17;
    for kept in 49..whole {
        let bytes = RawContent { shortened: whole - kept, ..raw.clone() }.bytes();
        assert_eq!(bytes.len(), 6 + kept);
        let (_, field) = *fields.iter().find(|(end, _)| kept < *end).unwrap();
        let expected = DecodeError::BadMetadata { field };
        assert_eq!(Packet::decode_exact(&bytes).unwrap_err(), expected, "{kept} bytes");
        assert_eq!(Packet::decode(&bytes).unwrap_err(), expected, "{kept} bytes");
        assert_eq!(Decoder::new().decode(&mut &bytes[..]).unwrap_err(), expected, "{kept} bytes");
    }
}

//= VTX-FRM-010 test
//= VTX-FRM-011 test
//= VTX-FRM-012 test
//= VTX-REQ-003 test
#[test]
fn requests_and_errors_keep_the_order_too() {
    let bad_task_id = [b'G'; 64];
    let cases: [(&str, Vec<u8>); 12] = [
        ("too-long", build::packet_of(1, 0x00, 16_385, &[])),
        ("too-long", build::packet_of(1, 0xFF, 16_385, &[0xFF; 20])),
        ("too-long", build::packet_of(1, 0x08, u32::MAX, &[])),
        ("bad-length", build::packet_of(1, 0x00, 69, &bad_task_id)),
        ("bad-length", build::packet_of(1, 0x02, 67, &[])),
        ("bad-length", build::packet_of(1, 0xFF, 0, &[0xFF])),
        ("bad-length", build::packet_of(1, 0x07, 0, &[])),
        ("truncated", build::packet_of(1, 0x04, 68, &bad_task_id)),
        ("truncated", build::packet_of(1, 0xFF, 5, &[1, 0xFF])),
        ("truncated", build::packet_of(1, 0xFE, 1, &[])),
        ("bad-task-id", [build::download(1, 0x06, &bad_task_id, 0), vec![0]].concat()),
        ("not-utf8", [build::error(1, 1, &[0xFF]), vec![0]].concat()),
    ];
    for (name, bytes) in cases {
        assert_eq!(Packet::decode_exact(&bytes).unwrap_err().name(), name, "{bytes:02x?}");
    }
}

/// The limit of each field is allowed, one more is not.
#[test]
fn limits_are_inclusive() {
    let content = |change: fn(&mut RawContent)| {
        let mut raw = RawContent::default();
        change(&mut raw);
        Packet::decode_exact(&raw.bytes()).map(|_| ()).map_err(|error| error.name())
    };
    assert_eq!(content(|raw| raw.piece_length = 1 << 30), Ok(()));
    assert_eq!(content(|raw| raw.digest = vec![b'd'; 256]), Ok(()));
    assert_eq!(content(|raw| raw.parent_id = vec![b'p'; 1024]), Ok(()));
    assert_eq!(content(|raw| (raw.digest, raw.parent_id) = (vec![], vec![])), Ok(()));
    assert_eq!(content(|raw| raw.appended = vec![1; 16_384 - 49 - 16 - 23]), Ok(()));
    assert_eq!(content(|raw| raw.appended = vec![1; 16_385 - 49 - 16 - 23]), Err("too-long"));
    let error = |length: usize| Packet::decode_exact(&build::error(1, 2, &vec![b'm'; length])).is_ok();
    assert_eq!((error(16_383), error(16_384)), (true, false));
    let reserved = |length: usize| Packet::decode_exact(&build::packet(1, 0x99, &vec![0; length])).is_ok();
    assert_eq!((reserved(16_384), reserved(16_385)), (true, false));
}

//= VTX-REQ-003 test
#[test]
fn one_byte_outside_of_the_alphabet_is_enough() {
    for at in 0..64 {
        for byte in 0..=255 {
            let mut task_id = [b'a'; 64];
            task_id[at] = byte;
            let bytes = build::download(1, 0x00, &task_id, 0);
            let allowed = matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            match Packet::decode_exact(&bytes) {
                Ok(_) => assert!(allowed, "0x{byte:02x}"),
                Err(error) => {
                    assert!(!allowed, "0x{byte:02x}");
                    assert_eq!(error, DecodeError::BadTaskId { at: at as u8, byte });
                }
            }
        }
    }
}
