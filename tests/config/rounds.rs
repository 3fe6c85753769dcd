//! A file is corrected in one round: what is said first is what helps, and nothing is left for the next time.

use pyrycode_relay::config::Config;

use crate::{only_problem, refuse};

/// Key and text of every problem.
fn said(file: &str) -> Vec<(String, String)> {
    refuse(file).iter().map(|problem| (problem.key.clone(), problem.text.clone())).collect()
}

#[test]
fn every_bad_element_of_a_list_is_named() {
    let found = said("[access]\nservers = [\"a b\", \"good\", \"c d\", 3]\n");
    let allowed = "allowed: 1 to 128 bytes of visible ASCII, without spaces";
    let expected = [
        format!("element 1: \"a b\" is not a server-id; {allowed}"),
        format!("element 3: \"c d\" is not a server-id; {allowed}"),
        "element 4: expected a string, found an integer; allowed: a server-id of 1 to 128 bytes of visible ASCII"
            .to_owned(),
    ];
    assert_eq!(found, expected.map(|text| ("access.servers".to_owned(), text)));
    let found = said("client_address.trusted = [\"10.0.0.0/33\", \"::1/128\", \"here\"]");
    assert_eq!(found.len(), 2, "{found:?}");
    for ((_, text), wrong) in found.iter().zip(["element 1: \"10.0.0.0/33\"", "element 3: \"here\""]) {
        assert!(text.starts_with(&format!("{wrong} is not a network; write one such as")), "{text}");
    }
}

#[test]
fn a_key_of_tls_goes_with_its_mode() {
    for (key, value, modes) in [
        ("certificate", "\"/a\"", "\"files\""),
        ("key", "\"credential:relay\"", "\"files\""),
        ("domains", "[\"relay.example.com\"]", "\"files\" or \"acme\""),
        ("contact", "\"mailto:ops@example.com\"", "\"acme\""),
        ("directory", "\"https://acme.example.com/directory\"", "\"acme\""),
        ("directory_ca", "\"/ca.pem\"", "\"acme\""),
        ("state", "\"/var/lib/elsewhere\"", "\"acme\""),
    ] {
        let (line, named, text) = only_problem(&format!("[tls]\n{key} = {value}\n"));
        assert_eq!((line, named), (2, format!("tls.{key}")));
        assert_eq!(text, format!("goes with tls.mode = {modes} only"));
    }
    let found = said("[tls]\nmode = \"files\"\ncertificate = \"/a\"\nstate = \"/c\"\n");
    let expected = [
        ("tls.mode", "\"files\" needs tls.certificate and tls.key"),
        ("tls.state", "goes with tls.mode = \"acme\" only"),
    ];
    assert_eq!(found, expected.map(|(key, text)| (key.to_owned(), text.to_owned())));
}

#[test]
fn the_names_of_a_certificate_are_names() {
    let files = "[tls]\nmode = \"files\"\ncertificate = \"/a\"\nkey = \"/b\"\n";
    let (line, key, text) = only_problem(&format!("{files}domains = []\n"));
    assert_eq!((line, key.as_str()), (5, "tls.domains"));
    assert!(text.starts_with("names nobody"), "{text}");
    let config =
        Config::parse(&format!("{files}domains = [\"Relay.Example.COM\", \"192.0.2.7\"]\n"), "f").unwrap();
    assert_eq!(config.tls.domains.unwrap(), ["relay.example.com", "192.0.2.7"]);

    let (_, key, text) = only_problem("[tls]\nmode = \"acme\"\ndomains = [\"a.example\", \"192.0.2.7\"]\n");
    assert_eq!(key, "tls.domains");
    assert!(text.starts_with("\"192.0.2.7\" is an address; \"acme\" proves names"), "{text}");
    let (_, key, text) = only_problem("[tls]\nmode = \"acme\"\n");
    assert_eq!((key.as_str(), text.as_str()), ("tls.mode", "\"acme\" needs tls.domains"));
}

#[test]
fn a_name_stands_once_and_is_no_number_for_an_authority() {
    let of = |mode: &str, domains: &str| {
        let files = if mode == "files" { "certificate = \"/a\"\nkey = \"/b\"\n" } else { "" };
        format!("[tls]\nmode = \"{mode}\"\n{files}domains = [{domains}]\n")
    };
    for mode in ["files", "acme"] {
        let (_, key, text) = only_problem(&of(mode, "\"a.example\", \"b.example\", \"A.Example\""));
        assert_eq!(key, "tls.domains");
        assert!(text.starts_with("has \"a.example\" twice"), "{text}");
    }
    for (name, what) in [
        ("1.2.3", "ends in a number, like an address"),
        ("relay.7", "ends in a number, like an address"),
        ("256.1.1.1", "ends in a number, like an address"),
        ("192.0.2.7", "is an address"),
    ] {
        let (_, key, text) = only_problem(&of("acme", &format!("\"{name}\"")));
        assert_eq!(key, "tls.domains");
        assert!(text.starts_with(&format!("\"{name}\" {what}; \"acme\" proves names")), "{text}");
    }
    for name in ["7.example", "a.7b", "xn--caf-dma.example"] {
        assert!(Config::parse(&of("acme", &format!("\"{name}\"")), "f").is_ok(), "{name}");
    }
}

#[test]
fn a_domain_that_is_none_is_told_which_slip_it_is() {
    for (name, what) in [
        ("relay.example.com.", "ends in a dot; write it without"),
        ("*.example.com", "is a wildcard; write each name"),
        ("relay.example.com:443", "has a port; write the host name alone"),
        ("https://relay.example.com", "is a URL or a path; write the host name alone"),
        ("relay.example.com/v1", "is a URL or a path; write the host name alone"),
        ("café.example", "is not ASCII; write the name in punycode (xn--...)"),
        ("::1", "is an IPv6 address, which cannot stand here; write a host name, or leave tls.domains out"),
        ("[2001:db8::7]", "is an IPv6 address, which cannot stand here; "),
        ("a_b.example", "is not a host name; write one such as"),
        ("", "is not a host name; write one such as"),
        ("..", "is not a host name; write one such as"),
        ("-a.example", "is not a host name; write one such as"),
    ] {
        for mode in ["mode = \"acme\"", "mode = \"files\"\ncertificate = \"/a\"\nkey = \"/b\""] {
            let (_, key, text) = only_problem(&format!("[tls]\n{mode}\ndomains = [\"{name}\"]\n"));
            assert_eq!(key, "tls.domains");
            assert!(text.starts_with(&format!("element 1: \"{name}\" {what}")), "{text}");
        }
    }
}

#[test]
fn the_directory_of_an_authority_is_a_url_with_a_host() {
    let with =
        |url: &str| format!("[tls]\nmode = \"acme\"\ndomains = [\"a.example\"]\ndirectory = \"{url}\"\n");
    let long = format!("https://a.example/{}", "x".repeat(182));
    for good in [
        "https://a.example/directory",
        "https://a.example",
        "https://step_ca:9000/acme/acme/directory",
        "https://192.0.2.7:14000/dir?x=@",
        "https://[::1]:14000/dir",
        "https://[::1]",
        &long,
    ] {
        assert!(Config::parse(&with(good), "f").is_ok(), "{good}");
    }
    let longer = format!("{long}x");
    for (bad, what) in [
        ("http://a.example/d", "is not an https URL"),
        ("https://a.example/d d", "is not an https URL"),
        ("https://", "names no host"),
        ("https:///x", "names no host"),
        ("https://:443/x", "names no host"),
        ("https://..", "names a host that is none"),
        ("https://[::1/d", "names a host that is none"),
        ("https://::1/d", "names a host that is none"),
        ("https://a..example/d", "names a host that is none"),
        ("https://a.example:/d", "names a port that is none"),
        ("https://a.example:0/d", "names a port that is none"),
        ("https://a.example:65536/d", "names a port that is none"),
        (&longer, "is too long; allowed: an https URL of at most 200 bytes"),
    ] {
        let (_, key, text) = only_problem(&with(bad));
        assert_eq!(key, "tls.directory");
        assert!(text.contains(&format!("\" {what}")), "{bad}: {text}");
    }
    // What is refused is shown, but no password.
    for bad in ["https://user:secret@a.example/d", "https://user@", "https://u:sec ret@a", "https://u:é@a"] {
        let (line, key, text) = only_problem(&with(bad));
        assert_eq!((line, key.as_str()), (4, "tls.directory"));
        assert!(
            text.starts_with("has a user or a password before its host, which would be logged; "),
            "{text}"
        );
    }
}

#[test]
fn a_contact_is_one_plain_address() {
    let with = |contact: &str| {
        format!("[tls]\nmode = \"acme\"\ndomains = [\"a.example\"]\ncontact = \"{contact}\"\n")
    };
    assert!(Config::parse(&with("mailto:ops+relay@example.com"), "f").is_ok());
    for (bad, what) in [
        ("mailto:o ps@example.com", "has a space, a control character or one that is not ASCII"),
        ("mailto:ops@example.com ", "has a space, a control character or one that is not ASCII"),
        ("mailto:o\\nps@example.com", "has a space, a control character or one that is not ASCII"),
        ("mailto:öps@example.com", "has a space, a control character or one that is not ASCII"),
        ("ops@example.com", "is not a contact; write one such as"),
        ("mailto:@example.com", "is not a contact; write one such as"),
        ("mailto:ops@", "is not a contact; write one such as"),
        ("mailto:ops@example.com?x", "is not a contact; write one such as"),
    ] {
        let (_, key, text) = only_problem(&with(bad));
        assert_eq!(key, "tls.contact");
        assert!(text.contains(what), "{bad}: {text}");
    }
}

#[test]
fn proxies_are_believed_where_they_are_asked_and_nowhere_else() {
    for source in ["x-forwarded-for", "proxy-protocol"] {
        let file = format!("[client_address]\nsource = \"{source}\"\n");
        let (line, key, text) = only_problem(&file);
        assert_eq!((line, key.as_str()), (2, "client_address.source"));
        assert_eq!(text, "needs client_address.trusted; without it, no proxy would be believed");
        assert!(Config::parse(&format!("{file}trusted = [\"10.0.0.0/8\"]"), "f").is_ok());
    }
    for everybody in ["0.0.0.0/0", "::/0"] {
        let file = format!("[client_address]\nsource = \"x-forwarded-for\"\ntrusted = [\"{everybody}\"]\n");
        let (line, key, text) = only_problem(&file);
        assert_eq!((line, key.as_str()), (3, "client_address.trusted"));
        assert!(text.starts_with("trusts everybody"), "{text}");
    }
    let (line, key, text) = only_problem("[client_address]\ntrusted = [\"10.0.0.0/8\"]\n");
    assert_eq!((line, key.as_str()), (2, "client_address.trusted"));
    assert!(text.starts_with("goes with client_address.source = \"x-forwarded-for\" or"), "{text}");
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

    // With TLS, everybody may come; so may they if it cannot be read whether there is to be TLS.
    for mode in ["\"files\"", "\"acme2\"", "7"] {
        let found = said(&format!("[listen]\npublic = \"0.0.0.0:443\"\n[tls]\nmode = {mode}\n"));
        let named: Vec<_> = found.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(named, ["tls.mode"], "{mode}");
    }
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
        "9: limits.connections: 0 is out of range; allowed: a whole number from 2 to 1000000",
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
