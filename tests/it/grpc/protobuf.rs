//! Protocol Buffers by hand: fields, numbers and nothing else.

/// A value of a field.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Number(u64),
    Bytes(Vec<u8>),
}

/// A message under construction.
#[derive(Default, Clone)]
pub(super) struct Builder(Vec<u8>);

impl Builder {
    pub(super) fn number(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    pub(super) fn bytes(mut self, field: u64, value: impl AsRef<[u8]>) -> Self {
        self.varint(field << 3 | 2);
        self.varint(value.as_ref().len() as u64);
        self.0.extend_from_slice(value.as_ref());
        self
    }

    pub(super) fn build(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// The fields of a message, in their order.
pub(super) fn fields(mut message: &[u8]) -> Vec<(u64, Value)> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message);
        let value = varint(&mut message);
        let value = match key & 7 {
            0 => Value::Number(value),
            2 => {
                let (bytes, rest) = message.split_at(value as usize);
                message = rest;
                Value::Bytes(bytes.to_vec())
            }
            other => panic!("wire type {other}"),
        };
        fields.push((key >> 3, value));
    }
    fields
}

/// The one field with this number.
pub(super) fn field(fields: &[(u64, Value)], number: u64) -> Option<Value> {
    let mut found = fields.iter().filter(|(field, _)| *field == number);
    let (_, value) = found.next()?;
    assert!(found.next().is_none(), "field {number} occurs twice");
    Some(value.clone())
}

/// The one field with this number, which holds bytes; empty if it is not there.
pub(super) fn bytes(fields: &[(u64, Value)], number: u64) -> Vec<u8> {
    match field(fields, number) {
        Some(Value::Bytes(bytes)) => bytes,
        None => Vec::new(),
        Some(other) => panic!("field {number} is {other:?}"),
    }
}

/// The one field with this number, which holds a number; 0 if it is not there.
pub(super) fn number(fields: &[(u64, Value)], number: u64) -> u64 {
    match field(fields, number) {
        Some(Value::Number(value)) => value,
        None => 0,
        Some(other) => panic!("field {number} is {other:?}"),
    }
}

fn varint(message: &mut &[u8]) -> u64 {
    let mut value = 0;
    for at in 0.. {
        let (byte, rest) = message.split_first().unwrap();
        *message = rest;
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}

/// A message in its frame.
pub(super) fn frame(message: &[u8]) -> Vec<u8> {
    [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
}

/// The message in a frame.
pub(super) fn unframe(frame: &[u8]) -> &[u8] {
    let (prefix, message) = frame.split_at(5);
    assert_eq!(prefix[0], 0);
    assert_eq!(u32::from_be_bytes(prefix[1..].try_into().unwrap()) as usize, message.len());
    message
}

/// The request for a piece.
pub(super) fn request(task_id: &str, number: u64) -> Vec<u8> {
    frame(&Builder::default().bytes(1, "host").bytes(2, task_id).number(3, number).build())
}
