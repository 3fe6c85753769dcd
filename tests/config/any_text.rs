//! Whatever a file holds, it is read or refused, and never a panic.

use proptest::prelude::*;
use pyrycode_relay::config::{Config, keys};

use crate::{uncommented, with};

/// A problem names a line that is in the file, and the report has one line for each problem.
fn sound(text: &str) -> Result<(), TestCaseError> {
    match Config::parse(text, "f") {
        Ok(config) => {
            prop_assert_eq!(&Config::parse(&config.to_toml(), "printed").unwrap(), &config);
            prop_assert_eq!(Config::parse(&config.to_toml(), "printed").unwrap().to_toml(), config.to_toml());
        }
        Err(problems) => {
            let lines = text.matches('\n').count() + 1;
            prop_assert!(problems.count() > 0);
            prop_assert!(problems.iter().all(|problem| (1..=lines).contains(&problem.line)), "{}", problems);
            prop_assert_eq!(problems.to_string().lines().count(), problems.count() + 1, "{}", problems);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        sound(&text)?;
    }

    #[test]
    fn any_text_made_of_toml_is_read_or_refused(
        text in "(\\[{1,3}|\\]{1,3}|session|grace|listen|public|=|\\.|,|\"30s\"|\"|'''|\"\"\"|#|\\{|\\}|-?[0-9_]{1,20}|0x|1979-05-27|inf|\\\\u|\r| |\n){0,60}",
    ) {
        sound(&text)?;
    }

    #[test]
    fn any_damage_to_the_reference_is_read_or_refused(
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0..40usize, "[\\[\\]=\"'#\n\\\\.{},a-z0-9 é]{0,6}"), 1..6),
    ) {
        let mut text: Vec<char> = uncommented(|_| true).chars().collect();
        for (at, length, insert) in cuts {
            let at = at.index(text.len() + 1);
            let end = (at + length).min(text.len());
            text.splice(at..end, insert.chars());
        }
        sound(&text.into_iter().collect::<String>())?;
    }

    #[test]
    fn any_value_of_any_key_is_read_or_refused(
        key in any::<prop::sample::Index>(),
        value in prop_oneof![any::<i128>().prop_map(|n| n.to_string()), "\"[0-9]{1,25}(ms|s|m|h|B|KiB|MiB|GiB)\"", any::<f64>().prop_map(|f| format!("{f:?}")), "\"[ -~]{0,40}\"", "\\[(\"[a-z0-9./:]{0,9}\",){0,4}\\]"],
    ) {
        sound(&with(key.get(keys()), &value))?;
    }
}
