//! Conformance: our own peers pass every case, and peers with one planted fault are each caught by the case that names it.

mod broken_client;
mod broken_server;
mod own_client;
mod own_server;
mod world;

#[test]
fn the_lists_of_deployed_failures_name_cases_and_divergences_that_exist() {
    use vortex_p2p::conformance::{ExpectedFailures, client, server};
    let book = crate::committed::read("book/src/spec/divergences.md");
    for (mode, cases) in [("server", server::list()), ("client", client::list())] {
        let text = crate::committed::read(&format!("spec/deployed/{mode}-failures.txt"));
        ExpectedFailures::parse(&text).unwrap();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let (id, reason) = line.split_once(' ').unwrap();
            let id = id.trim_start_matches("quic:").trim_start_matches("tcp:");
            let exists = cases.iter().any(|case| case.id == id || case.id.split('/').next() == Some(id));
            assert!(exists, "{line}");
            let divergence = reason.split(':').next().unwrap();
            assert!(book.contains(&format!("\n| {divergence} |")), "{line}");
        }
    }
}

#[test]
fn the_guide_says_how_many_cases_there_are() {
    use vortex_p2p::conformance::{client, server};
    let guide = crate::committed::read("book/src/implementing/guide.md");
    let said = format!("{} cases for servers and {} for clients", server::list().len(), client::list().len());
    assert!(guide.contains(&said), "expected in the guide: {said}");
}
