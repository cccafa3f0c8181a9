//! Any text as a file of variables: an error or a value that a shell would read, too.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str)| {
    let (content, key) = input;
    let Ok(Some(value)) = coracle_model::env_file_value(content, key) else { return };
    assert!(!value.contains('\''), "a quote ends it");
    // What comes after the variable does not matter.
    let longer = format!("{content}\nno variable");
    assert_eq!(coracle_model::env_file_value(&longer, key), Ok(Some(value)));
});
