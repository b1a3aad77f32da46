//! The specification's text: its requirements are well-formed, and `spec/requirements.json` lists them.

pub(crate) mod requirement;

use std::collections::{BTreeMap, BTreeSet};

use requirement::{CHAPTERS, Requirement, all, ids_in, key_words};

use crate::committed;

/// Every file in which an id of a requirement may be mentioned as prose.
fn prose() -> Vec<(String, String)> {
    let mut files = vec![];
    for directory in ["book/src", "book/src/spec", "book/src/implementing", "spec"] {
        let Ok(entries) = std::fs::read_dir(committed::path(directory)) else { continue };
        for entry in entries {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".md") {
                let name = format!("{directory}/{name}");
                let text = committed::read(&name);
                files.push((name, text));
            }
        }
    }
    files.sort();
    files
}

#[test]
fn each_requirement_is_one_sentence_with_one_key_word() {
    let requirements = all();
    assert!(requirements.len() > 150, "only {} requirements were found", requirements.len());
    let mut wrong = vec![];
    for Requirement { id, text, following, .. } in &requirements {
        let words = key_words(text);
        if words.len() != 1 {
            wrong.push(format!("{id} has the key words {words:?}, not exactly one"));
        }
        if !text.ends_with('.') || text.contains(". ") || text.contains(':') || text.contains("e.g.") {
            wrong.push(format!("{id} is not one plain sentence: {text}"));
        }
        if !following.is_empty() {
            wrong.push(format!("{id} goes on after its one line: {following}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn key_words_stand_in_requirements_only() {
    let requirements: BTreeSet<String> = all().into_iter().map(|requirement| requirement.text).collect();
    let mut wrong = vec![];
    for (name, text) in prose() {
        for (number, line) in text.lines().enumerate() {
            // The one place that explains the key words.
            let explains =
                name.ends_with("spec/terms.md") && (line.contains("\"MAY\"") || line.contains("\"MUST\""));
            if !key_words(line).is_empty()
                && !requirements.contains(line)
                && !explains
                && !name.ends_with("coverage.md")
            {
                wrong.push(format!("{name}:{}: {line}", number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "a key word outside of a requirement: {wrong:#?}");
}

#[test]
fn ids_are_unique_match_their_anchors_and_leave_no_unexplained_gap() {
    let requirements = all();
    let mut seen = BTreeSet::new();
    let mut areas: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
    for Requirement { id, anchor, chapter, .. } in &requirements {
        assert!(seen.insert(id.as_str()), "{id} is given out twice");
        assert_eq!(*anchor, id.to_lowercase(), "the anchor of {id}");
        let area = id.split('-').nth(1).unwrap();
        let (_, home) = CHAPTERS.iter().find(|(code, _)| *code == area).expect("an area of the table");
        assert_eq!(chapter, home, "{id} is in the wrong chapter");
        areas.entry(area).or_default().insert(id.rsplit('-').next().unwrap().parse().unwrap());
    }
    let changes = committed::read("spec/CHANGELOG.md");
    for (area, numbers) in areas {
        for number in 1..=*numbers.last().unwrap() {
            let id = format!("VTX-{area}-{number:03}");
            assert!(
                numbers.contains(&number) || changes.contains(&id),
                "{id} is missing: an id that goes is named in the change log"
            );
        }
    }
}

#[test]
fn every_id_that_is_mentioned_exists_and_links_lead_to_it() {
    let requirements = all();
    let by_id: BTreeMap<&str, &Requirement> =
        requirements.iter().map(|requirement| (requirement.id.as_str(), requirement)).collect();
    let mut wrong = vec![];
    let mut links = 0;
    for (name, text) in prose() {
        for (number, line) in text.lines().enumerate() {
            for id in ids_in(line) {
                if !by_id.contains_key(id) && !name.ends_with("CHANGELOG.md") {
                    wrong.push(format!("{name}:{}: {id} does not exist", number + 1));
                }
            }
            // [VTX-QUC-030](quic.md#vtx-quc-030), and the same with ../spec/ before.
            for (at, _) in line.match_indices("](") {
                let target = line[at + 2..].split(')').next().unwrap_or_default();
                let Some((file, anchor)) = target.split_once('#') else { continue };
                if !anchor.starts_with("vtx-") {
                    continue;
                }
                links += 1;
                let text = line[..at].rsplit('[').next().unwrap_or_default();
                let goes = by_id.get(anchor.to_uppercase().as_str()).is_some_and(|requirement| {
                    let file = file.rsplit('/').next().unwrap_or_default();
                    file.is_empty() || file == requirement.chapter
                });
                let named = ids_in(text).first().is_none_or(|id| id.to_lowercase() == anchor);
                if !goes || !named {
                    wrong.push(format!("{name}:{}: [{text}]({target}) leads nowhere", number + 1));
                }
            }
        }
    }
    assert!(links > 20, "only {links} links were found");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_index_of_requirements_is_up_to_date() {
    let mut index = String::from("{\n  \"schema\": \"requirements.schema.json\",\n  \"requirements\": [\n");
    let requirements = all();
    for (at, requirement) in requirements.iter().enumerate() {
        let comma = if at + 1 < requirements.len() { "," } else { "" };
        index.push_str(&format!("    {}{comma}\n", requirement.to_json()));
    }
    index.push_str("  ]\n}\n");
    let parsed: serde_json::Value = serde_json::from_str(&index).unwrap();
    assert_eq!(parsed["requirements"].as_array().unwrap().len(), requirements.len());
    committed::check("spec/requirements.json", &index);
}

/// The schema's lists of values are the ones that the text uses, no more and no less. (Whether the index fits
/// the schema as a whole is checked by the interop step, with a JSON schema library.)
#[test]
fn the_schema_of_the_index_knows_every_value() {
    let schema: serde_json::Value =
        serde_json::from_str(&committed::read("spec/requirements.schema.json")).unwrap();
    let fields = &schema["$defs"]["requirement"]["properties"];
    let listed = |list: &serde_json::Value| -> BTreeSet<String> {
        list.as_array().unwrap().iter().map(|value| value.as_str().unwrap().to_owned()).collect()
    };
    let requirements = all();
    let used = |value: fn(&Requirement) -> &str| -> BTreeSet<String> {
        requirements.iter().map(|requirement| value(requirement).to_owned()).collect()
    };
    assert!(used(|requirement| requirement.level).is_subset(&listed(&fields["level"]["enum"])));
    assert_eq!(used(|requirement| requirement.transport), listed(&fields["transport"]["enum"]));
    assert_eq!(used(|requirement| &requirement.chapter), listed(&fields["chapter"]["enum"]));
    let roles: BTreeSet<String> =
        requirements.iter().flat_map(|requirement| requirement.roles.clone()).collect();
    assert_eq!(roles, listed(&fields["roles"]["items"]["enum"]));
}
