//! Conformance: our own peers pass every case, and peers with one planted fault are each caught by the case that names it.

mod broken_client;
mod broken_server;
mod own_client;
mod own_server;
mod world;

#[test]
fn the_list_of_deployed_failures_names_cases_that_exist() {
    use vortex_p2p::conformance::{ExpectedFailures, client, server};
    let text = crate::committed::read("spec/deployed-failures.txt");
    ExpectedFailures::parse(&text).unwrap();
    let cases: Vec<&str> = server::list().iter().chain(&client::list()).map(|case| case.id).collect();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (id, reason) = line.split_once(' ').unwrap();
        let id = id.trim_start_matches("quic:").trim_start_matches("tcp:");
        let exists = cases.iter().any(|case| *case == id || case.split('/').next() == Some(id));
        assert!(exists && reason.starts_with("DIV-"), "{line}");
    }
}

#[test]
fn the_guide_says_how_many_cases_there_are() {
    use vortex_p2p::conformance::{client, server};
    let guide = crate::committed::read("book/src/implementing/guide.md");
    let said = format!("{} cases for servers and {} for clients", server::list().len(), client::list().len());
    assert!(guide.contains(&said), "expected in the guide: {said}");
}
