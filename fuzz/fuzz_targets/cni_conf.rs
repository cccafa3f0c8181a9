//! Any bytes as a network configuration, of a list or of one plugin: an error, or a list that is written as it is read and
//! whose plugins can read what they are called with.

#![no_main]

use coracle_cni::{ConfigList, PluginConfig};
use libfuzzer_sys::fuzz_target;
use serde_json::json;

fuzz_target!(|text: &[u8]| {
    for list in [ConfigList::parse(text), ConfigList::parse_single(text)].into_iter().flatten() {
        let written = list.to_json();
        let read = ConfigList::parse(written.to_string().as_bytes()).expect("a list that was read is one");
        assert_eq!(read.to_json(), written);
        let capabilities = json!({"portMappings": [], "mac": "02:00:00:00:00:01"});
        for plugin in &list.plugins {
            let told = list.config_of(plugin, None, capabilities.as_object().expect("an object")).to_json();
            let config =
                PluginConfig::from_json(told.clone()).expect("a plugin reads what it is called with");
            assert_eq!(
                (config.cni_version, &config.name, &config.kind),
                (list.version, &list.name, &plugin.kind)
            );
            assert_eq!(config.to_json(), told);
        }
    }
});
