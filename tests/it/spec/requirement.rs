//! Requirements, read from the chapters of the book.

use crate::committed;

/// Areas and their chapters, in the order of the book.
pub(crate) const CHAPTERS: [(&str, &str); 12] = [
    ("FRM", "framing.md"),
    ("TAG", "tags.md"),
    ("REQ", "requests.md"),
    ("CNT", "content.md"),
    ("DIG", "digests.md"),
    ("ERR", "errors.md"),
    ("CLS", "close.md"),
    ("QUC", "quic.md"),
    ("TCP", "tcp.md"),
    ("LIM", "limits.md"),
    ("EXT", "extensions.md"),
    ("SEC", "security.md"),
];

/// The key words of BCP 14; a longer one stands before the one that it contains.
const KEY_WORDS: [&str; 11] = [
    "MUST NOT",
    "MUST",
    "SHALL NOT",
    "SHALL",
    "SHOULD NOT",
    "SHOULD",
    "NOT RECOMMENDED",
    "RECOMMENDED",
    "REQUIRED",
    "MAY",
    "OPTIONAL",
];

const ROLES: [&str; 5] = ["Peer", "Client", "Server", "Sender", "Receiver"];

/// One requirement, as the text has it.
pub(crate) struct Requirement {
    pub(crate) id: String,
    pub(crate) anchor: String,
    pub(crate) title: String,
    /// File name of the chapter.
    pub(crate) chapter: String,
    /// The heading of the second level above it; empty where there is none.
    pub(crate) section: String,
    /// Its key word.
    pub(crate) level: &'static str,
    /// Whom it binds: the subjects of the sentence.
    pub(crate) roles: Vec<String>,
    /// `quic`, `tcp` or `any`: by chapter, or by a title that ends with "on QUIC" or "on TCP".
    pub(crate) transport: &'static str,
    /// The sentence, in markdown.
    pub(crate) text: String,
    /// What follows the sentence's line directly; nothing should.
    pub(crate) following: String,
}

impl Requirement {
    /// One line of the index. By hand, because the order of the keys is for people.
    pub(crate) fn to_json(&self) -> String {
        let json = |text: &str| serde_json::Value::from(text).to_string();
        let roles: Vec<_> = self.roles.iter().map(|role| json(role)).collect();
        format!(
            "{{\"id\": {}, \"title\": {}, \"level\": {}, \"roles\": [{}], \"transport\": {}, \"chapter\": {}, \
             \"section\": {}, \"text\": {}}}",
            json(&self.id),
            json(&self.title),
            json(self.level),
            roles.join(", "),
            json(self.transport),
            json(&self.chapter),
            json(&self.section),
            json(&self.text),
        )
    }
}

/// All requirements, in the order of the book.
pub(crate) fn all() -> Vec<Requirement> {
    CHAPTERS.iter().flat_map(|(_, chapter)| chapter_of(chapter)).collect()
}

fn chapter_of(chapter: &str) -> Vec<Requirement> {
    let text = committed::read(&format!("book/src/spec/{chapter}"));
    let lines: Vec<&str> = text.lines().collect();
    let mut found = vec![];
    let mut section = "";
    for (at, line) in lines.iter().enumerate() {
        if let Some(heading) = line.strip_prefix("## ") {
            section = heading.split(" {#").next().unwrap_or(heading);
        }
        let Some(heading) = line.strip_prefix("### ") else { continue };
        let parsed = heading.strip_suffix('}').and_then(|heading| {
            let (heading, anchor) = heading.split_once(" {#")?;
            let (id, title) = heading.split_once(": ")?;
            (ids_in(id) == [id]).then_some((id, title, anchor))
        });
        let Some((id, title, anchor)) = parsed else {
            panic!("{chapter}:{}: a heading of the third level is not a requirement: {line}", at + 1);
        };
        let line_after = |lines_on: usize| lines.get(at + lines_on).copied().unwrap_or_default();
        assert_eq!(line_after(1), "", "{id}: an empty line follows the heading");
        let text = line_after(2).to_owned();
        let level =
            key_words(&text).first().copied().unwrap_or_else(|| panic!("{id} has no key word: {text}"));
        found.push(Requirement {
            id: id.to_owned(),
            anchor: anchor.to_owned(),
            title: title.to_owned(),
            chapter: chapter.to_owned(),
            section: section.to_owned(),
            level,
            roles: roles_of(id, &text),
            transport: transport_of(chapter, title),
            text,
            following: line_after(3).to_owned(),
        });
    }
    found
}

/// The subject of the sentence ("A Server that …"), and a second one that shares its key word ("…, and a Client no
/// streams at all").
fn roles_of(id: &str, text: &str) -> Vec<String> {
    let role_at = |text: &str| ROLES.into_iter().find(|role| text.starts_with(role)).map(str::to_owned);
    let mut roles: Vec<String> = text.strip_prefix("A ").and_then(role_at).into_iter().collect();
    assert!(!roles.is_empty(), "{id} does not begin with the role that it binds: {text}");
    roles.extend(text.match_indices(", and a ").filter_map(|(at, found)| role_at(&text[at + found.len()..])));
    roles
}

fn transport_of(chapter: &str, title: &str) -> &'static str {
    if chapter == "quic.md" || title.ends_with(" on QUIC") {
        "quic"
    } else if chapter == "tcp.md" || title.ends_with(" on TCP") {
        "tcp"
    } else {
        "any"
    }
}

/// The key words in a text, in order. Words in lower case are none.
pub(crate) fn key_words(text: &str) -> Vec<&'static str> {
    let letter = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let mut found = vec![];
    let mut at = 0;
    while let Some(rest) = text.get(at..) {
        let boundary = !text[..at].ends_with(letter);
        let word = KEY_WORDS
            .into_iter()
            .find(|word| boundary && rest.strip_prefix(word).is_some_and(|after| !after.starts_with(letter)));
        found.extend(word);
        at += word.map_or_else(|| rest.chars().next().map_or(1, char::len_utf8), str::len);
    }
    found
}

/// What looks like the id of a requirement in a line, in order.
pub(crate) fn ids_in(line: &str) -> Vec<&str> {
    line.match_indices("VTX-")
        .filter_map(|(at, _)| {
            let id = line.get(at..at + 11)?.as_bytes();
            let shaped = id[4..7].iter().all(u8::is_ascii_uppercase)
                && id[7] == b'-'
                && id[8..].iter().all(u8::is_ascii_digit)
                && id[4..7] != *b"AAA"
                && id[4..7] != *b"XXX";
            shaped.then(|| &line[at..at + 11])
        })
        .collect()
}

#[test]
fn key_words_are_found_whole() {
    assert_eq!(
        key_words("MUST NOT, MUST. SHOULD NOT MAYBE MUSTY A_MUST"),
        ["MUST NOT", "MUST", "SHOULD NOT"]
    );
    assert_eq!(key_words("a NOT RECOMMENDED thing must – not"), ["NOT RECOMMENDED"]);
}

#[test]
fn ids_are_found_in_text() {
    assert_eq!(
        ids_in("see [VTX-QUC-046](quic.md#vtx-quc-046), VTX-FRM-01 and VTX-ABC-123."),
        ["VTX-QUC-046", "VTX-ABC-123"]
    );
}
