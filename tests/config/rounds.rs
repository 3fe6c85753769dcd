//! A file is corrected in one round: what is said first is what helps, and nothing is left for the next time.

use pyrycode_relay::config::{Config, keys};

use crate::{only_problem, refuse, with};

/// Key and text of every problem.
fn said(file: &str) -> Vec<(String, String)> {
    refuse(file).iter().map(|problem| (problem.key.clone(), problem.text.clone())).collect()
}

#[test]
fn every_bad_element_of_a_list_is_named() {
    let (line, key, text) = only_problem("[access]\nservers = [\"a b\", \"good\", \"c d\", 3]\n");
    assert_eq!((line, key.as_str()), (2, "access.servers"));
    assert_eq!(
        text,
        "only [] is built in this version; any other value is refused rather than ignored (element 1: \"a b\" is \
         not a server-id; element 3: \"c d\" is not a server-id; element 4: expected a string, found an integer)"
    );
    let (_, _, text) = only_problem("client_address.trusted = [\"10.0.0.0/33\", \"::1/128\", \"here\"]");
    assert!(text.contains("(element 1: \"10.0.0.0/33\" is not a network; element 3: \"here\" is"), "{text}");
    assert!(!text.contains("element 2"), "{text}");
}

#[test]
fn what_is_not_built_is_said_whatever_the_value() {
    for value in ["0", "5000", "10000000", "\"many\"", "true", "[1]", "-1"] {
        let (line, key, text) = only_problem(&format!("[limits]\nconnections = {value}\n"));
        assert_eq!((line, key.as_str()), (2, "limits.connections"));
        assert!(text.starts_with("only 10000 is built in this version; "), "{text}");
        assert!(text.contains(" is refused rather than ignored"), "{text}");
        // No range, and no example of a value that would be refused in the next round.
        assert!(!text.contains("allowed: ") && !text.contains("write "), "{text}");
    }
    for key in keys().iter().filter(|key| !key.built) {
        for value in ["\"\"", "\"30 parsecs\"", "[\"\"]", "99999999999999999999"] {
            let (_, _, text) = only_problem(&with(key, value));
            let only = match key.default() {
                Some(default) => format!("only {default} is built in this version; any other value is"),
                None => "not built in this version, leave it out; any value is".to_owned(),
            };
            assert!(
                text.starts_with(&format!("{only} refused rather than ignored (")),
                "{}: {text}",
                key.path()
            );
        }
    }
}

#[test]
fn what_is_not_built_does_not_contradict_itself() {
    let found = said("[tls]\nmode = \"files\"\ncertificate = \"/a\"\nkey = \"/b\"\nstate = \"/c\"\n");
    let expected = [
        ("tls.mode", "only \"off\" is built in this version; \"files\" is refused rather than ignored"),
        ("tls.certificate", "not built in this version, leave it out; \"/a\" is refused rather than ignored"),
        ("tls.key", "not built in this version, leave it out; \"/b\" is refused rather than ignored"),
        ("tls.state", "not built in this version, leave it out; \"/c\" is refused rather than ignored"),
    ];
    assert_eq!(found, expected.map(|(key, text)| (key.to_owned(), text.to_owned())));

    for file in ["tls.mode = \"files\"", "tls.mode = \"acme\"", "client_address.source = \"proxy-protocol\""]
    {
        let (_, _, text) = only_problem(file);
        assert!(text.contains(" is built in this version; "), "{text}");
    }
}

#[test]
fn rules_judge_what_will_hold_once_the_file_is_corrected() {
    // A value that cannot be read proves nothing: the timeout may be long enough for what was meant.
    for value in ["1", "\"0s\"", "\"1 s\""] {
        let found = said(&format!("[drain]\nspread = {value}\ntimeout = \"2s\"\n"));
        assert_eq!((found.len(), found[0].0.as_str()), (1, "drain.spread"), "{value}: {found:?}");
    }
    let found = said("[drain]\nspread = \"3s\"\ntimeout = \"2s\"\n");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].1.starts_with("\"2s\" is shorter than drain.spread (\"3s\")"), "{found:?}");

    // TLS is not there, whatever tls.mode asks for.
    let found = said("[listen]\npublic = \"0.0.0.0:443\"\n[tls]\nmode = \"files\"\n");
    let named: Vec<_> = found.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(named, ["listen.public", "tls.mode"]);
}

#[test]
fn a_mistyped_table_is_judged_as_the_one_that_was_meant() {
    let problems = refuse(
        "[client_adress]\nsource = \"peer\"\ntrustd = []\n\
         [sesion]\ngrace = \"x\"\nmax_frame = \"8MiB\"\n\
         [limit]\nphone_queue = \"9MiB\"\nconnections = 0\n",
    );
    let found: Vec<_> = problems
        .iter()
        .map(|problem| format!("{}: {}: {}", problem.line, problem.key, problem.text))
        .collect();
    let expected = [
        "1: client_adress: unknown table; did you mean [client_address]?",
        "3: client_address.trustd: unknown key; did you mean \"trusted\"?",
        "4: sesion: unknown table; did you mean [session]?",
        "5: session.grace: \"x\" is not a duration; write",
        // Rules take such a table into account, too: the phone's queue is large enough, the binary's is not.
        "6: limits.binary_queue: \"4MiB\" cannot hold one frame of session.max_frame (\"8MiB\")",
        "7: limit: unknown table; did you mean [limits]?",
        "9: limits.connections: only 10000 is built in this version; any other value is refused",
    ];
    assert_eq!(found.len(), expected.len(), "{problems}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "expected: {expected}\n   found: {found}");
    }
}

#[test]
fn a_mistyped_table_does_not_outvote_the_real_one() {
    let real = "[session]\nmax_frame = \"1MiB\"\n";
    let mistyped = "[sesion]\nmax_frame = \"8MiB\"\n";
    for file in [format!("{real}{mistyped}"), format!("{mistyped}{real}")] {
        let (_, key, text) = only_problem(&file);
        assert_eq!((key.as_str(), text.as_str()), ("sesion", "unknown table; did you mean [session]?"));
    }
    // Nothing is guessed about a table that is like no other.
    let (_, key, text) = only_problem("[metrics]\ngrace = \"x\"\n");
    assert_eq!(key, "metrics");
    assert!(text.starts_with("unknown table; the tables are: listen, tls, "), "{text}");
    assert!(Config::parse(real, "f").is_ok());
}
