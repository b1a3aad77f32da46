//! How vectors are written down. The bytes are laid out here, field by field, and not by the encoder.

use serde_json::Value;

/// Bytes as a vector has them: written out, or by formula where they are many.
#[derive(Debug, Clone, Default)]
pub(super) struct Bytes(Vec<Part>);

#[derive(Debug, Clone)]
enum Part {
    Hex(Vec<u8>),
    Repeat(Vec<u8>, usize),
    Steps { count: usize, start: u8, step: u8 },
}

impl Bytes {
    pub(super) fn hex(bytes: &[u8]) -> Self {
        Self::default().and(bytes)
    }

    /// `count` bytes, where byte i is start + i * step.
    pub(super) fn steps(count: usize, start: u8, step: u8) -> Self {
        Self(vec![Part::Steps { count, start, step }])
    }

    pub(super) fn repeat(bytes: &[u8], times: usize) -> Self {
        Self(vec![Part::Repeat(bytes.to_vec(), times)])
    }

    pub(super) fn and(mut self, bytes: &[u8]) -> Self {
        if let Some(Part::Hex(last)) = self.0.last_mut() {
            last.extend(bytes);
        } else if !bytes.is_empty() || self.0.is_empty() {
            self.0.push(Part::Hex(bytes.to_vec()));
        }
        self
    }

    pub(super) fn then(mut self, more: Self) -> Self {
        for part in more.0 {
            match part {
                Part::Hex(bytes) => self = self.and(&bytes),
                part => self.0.push(part),
            }
        }
        self
    }

    pub(super) fn expand(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in &self.0 {
            match part {
                Part::Hex(hex) => bytes.extend(hex),
                Part::Repeat(hex, times) => bytes.extend(hex.repeat(*times)),
                Part::Steps { count, start, step } => {
                    bytes.extend((0..*count).map(|at| (usize::from(*start) + at * usize::from(*step)) as u8));
                }
            }
        }
        bytes
    }

    /// The members that hold it.
    pub(super) fn member(&self) -> (&'static str, String) {
        match &self.0[..] {
            [] => ("hex", text("")),
            [Part::Hex(bytes)] => ("hex", text(&hex(bytes))),
            parts => ("formula", formula(parts)),
        }
    }
}

fn formula(parts: &[Part]) -> String {
    let parts = parts.iter().map(|part| match part {
        Part::Hex(bytes) => object([("hex", text(&hex(bytes)))]),
        Part::Repeat(bytes, times) => object([("repeat", text(&hex(bytes))), ("times", times.to_string())]),
        Part::Steps { count, start, step } => {
            object([("count", count.to_string()), ("start", start.to_string()), ("step", step.to_string())])
        }
    });
    array(parts)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn text(text: &str) -> String {
    Value::from(text).to_string()
}

pub(super) fn array(items: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", items.into_iter().collect::<Vec<_>>().join(", "))
}

/// An object on one line. By hand, because the order of the members is for people.
pub(super) fn object<'a>(members: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let members = members.into_iter().map(|(name, value)| format!("\"{name}\": {value}"));
    format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
}

/// A vector: its members in order, where a list has a line for each item.
#[derive(Debug, Default)]
pub(super) struct Vector {
    pub(super) id: String,
    members: Vec<(&'static str, Member)>,
    /// The bytes of a packet, for its file.
    pub(super) bytes: Option<Vec<u8>>,
}

#[derive(Debug)]
enum Member {
    Line(String),
    List(Vec<String>),
}

impl Vector {
    /// `requirements` are separated by spaces and lack `VTX-`, `flags` are separated by spaces.
    pub(super) fn new(id: &str, comment: &str, requirements: &str, flags: &str) -> Self {
        let requirements = requirements.split(' ').map(|id| text(&format!("VTX-{id}")));
        let mut vector = Self { id: id.to_owned(), ..Self::default() }
            .with("id", text(id))
            .with("comment", text(comment))
            .with("requirements", array(requirements));
        if !flags.is_empty() {
            vector = vector.with("flags", array(flags.split(' ').map(text)));
        }
        vector
    }

    pub(super) fn with(mut self, name: &'static str, value: String) -> Self {
        self.members.push((name, Member::Line(value)));
        self
    }

    pub(super) fn list(mut self, name: &'static str, items: Vec<String>) -> Self {
        self.members.push((name, Member::List(items)));
        self
    }

    pub(super) fn bytes(self, bytes: &Bytes) -> Self {
        let (name, value) = bytes.member();
        self.with(name, value)
    }

    fn to_json(&self) -> String {
        let members = self.members.iter().map(|(name, member)| match member {
            Member::Line(line) => format!("      \"{name}\": {line}"),
            Member::List(items) if items.is_empty() => format!("      \"{name}\": []"),
            Member::List(items) => {
                let items: Vec<_> = items.iter().map(|item| format!("        {item}")).collect();
                format!("      \"{name}\": [\n{}\n      ]", items.join(",\n"))
            }
        });
        format!("    {{\n{}\n    }}", members.collect::<Vec<_>>().join(",\n"))
    }
}

/// A whole file.
pub(super) fn file(kind: &str, description: &str, vectors: &[Vector]) -> String {
    let vectors: Vec<_> = vectors.iter().map(Vector::to_json).collect();
    format!(
        "{{\n  \"schema\": \"../vectors.schema.json\",\n  \"kind\": {},\n  \"description\": {},\n  \"vectors\": [\n{}\n  ]\n}}\n",
        text(kind),
        text(description),
        vectors.join(",\n"),
    )
}

/// A packet under construction: each call lays down one field and says what it is.
#[derive(Debug, Clone, Default)]
pub(super) struct Layout {
    pub(super) bytes: Bytes,
    fields: Vec<String>,
    length: usize,
}

impl Layout {
    pub(super) fn header(id: u8, tag: u8, length: u32) -> Self {
        Self::default().u8("id", id).u8("tag", tag).u32("length", length)
    }

    fn lay(mut self, bytes: &[u8], name: &str, value: String) -> Self {
        self.field(bytes.len(), name, value);
        self.bytes = self.bytes.and(bytes);
        self
    }

    fn field(&mut self, length: usize, name: &str, value: String) {
        let offset = self.length.to_string();
        let members =
            [("offset", offset), ("length", length.to_string()), ("name", text(name)), ("value", value)];
        self.fields.push(object(members));
        self.length += length;
    }

    pub(super) fn u8(self, name: &str, value: u8) -> Self {
        self.lay(&[value], name, value.to_string())
    }

    pub(super) fn u32(self, name: &str, value: u32) -> Self {
        self.lay(&value.to_be_bytes(), name, value.to_string())
    }

    pub(super) fn u64(self, name: &str, value: u64) -> Self {
        self.lay(&value.to_be_bytes(), name, text(&value.to_string()))
    }

    pub(super) fn i64(self, name: &str, value: i64) -> Self {
        self.lay(&value.to_be_bytes(), name, text(&value.to_string()))
    }

    pub(super) fn text(self, name: &str, value: &str) -> Self {
        self.lay(value.as_bytes(), name, text(value))
    }

    pub(super) fn raw(self, name: &str, value: &[u8]) -> Self {
        self.lay(value, name, text(&hex(value)))
    }

    /// A field whose bytes are many and all the same.
    pub(super) fn fill(mut self, name: &str, byte: u8, times: usize) -> Self {
        self.field(times, name, formula(&[Part::Repeat(vec![byte], times)]));
        self.bytes = self.bytes.then(Bytes::repeat(&[byte], times));
        self
    }

    /// Bytes that are no field.
    pub(super) fn junk(mut self, bytes: &[u8]) -> Self {
        self.bytes = self.bytes.and(bytes);
        self
    }

    /// As a vector; `result` is `valid`, `acceptable`, or the error.
    pub(super) fn vector(
        &self,
        id: &str,
        comment: &str,
        requirements: &str,
        flags: &str,
        result: &str,
    ) -> Vector {
        let vector = Vector::new(id, comment, requirements, flags).bytes(&self.bytes);
        let mut vector = match result {
            "valid" | "acceptable" => vector.with("result", text(result)).list("fields", self.fields.clone()),
            error => vector.with("result", text("invalid")).with("error", text(error)),
        };
        vector.bytes = Some(self.bytes.expand());
        vector
    }
}
