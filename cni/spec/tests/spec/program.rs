//! Plugins as a program.

use std::collections::BTreeMap;
use std::sync::Mutex;

use coracle_cni::{
    AddResult, Call, CniError, GcCall, IpConfig, Plugin, Plugins, Route, StatusCall, Version, code, program,
};
use serde_json::{Value, json};

use super::text::faults;

/// What the plugin of the tests was called with, last.
static CALLED: Mutex<Option<String>> = Mutex::new(None);

static PLUGINS: Plugins = Plugins(&[&Witness]);

/// A plugin that tells what it is called with.
struct Witness;

impl Plugin for Witness {
    fn kind(&self) -> &'static str {
        "witness"
    }

    fn add(&self, call: &Call) -> Result<AddResult, CniError> {
        let address = "10.1.0.5/16".parse().unwrap();
        let route = Route {
            dst: "::/0".parse().unwrap(),
            gw: None,
            mtu: Some(9),
            advmss: None,
            priority: None,
            table: None,
            scope: None,
        };
        let ips = vec![IpConfig { interface: None, address, gateway: None }];
        told(format!("ADD {} {:?} {}", call.container_id, call.netns, call.ifname));
        Ok(AddResult { ips, routes: vec![route], ..AddResult::default() })
    }

    fn del(&self, call: &Call) -> Result<(), CniError> {
        told(format!("DEL {} {:?}", call.container_id, call.config.prev_result.is_some()));
        Err(CniError { code: 123, msg: "still there".to_owned(), details: "all of it".to_owned() })
    }

    fn check(&self, call: &Call) -> Result<(), CniError> {
        told(format!("CHECK {:?}", call.config.prev_result.as_ref().map(|result| result.ips.len())));
        Ok(())
    }

    fn gc(&self, call: &GcCall) -> Result<(), CniError> {
        told(format!("GC {:?} {:?}", call.valid, call.path));
        Ok(())
    }

    fn status(&self, call: &StatusCall) -> Result<(), CniError> {
        told(format!("STATUS {}", call.config.name));
        Ok(())
    }
}

fn told(what: String) {
    *CALLED.lock().unwrap() = Some(what);
}

/// One execution: exit code, what was printed, what the plugin was called with.
fn execute(environment: &[(&str, &str)], stdin: &str) -> (u8, Value, Option<String>) {
    // The tests of one process share the witness.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    *CALLED.lock().unwrap() = None;
    let environment: BTreeMap<&str, &str> = environment.iter().copied().collect();
    let mut stdout = Vec::new();
    let read = |name: &str| environment.get(name).map(Into::into);
    let code = program::run(&PLUGINS, None, &read, &mut stdin.as_bytes(), &mut stdout);
    let json = if stdout.is_empty() { Value::Null } else { serde_json::from_slice(&stdout).unwrap() };
    (code, json, CALLED.lock().unwrap().take())
}

fn config(version: &str, more: Value) -> String {
    let mut json = json!({"cniVersion": version, "name": "net", "type": "witness"});
    json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json.to_string()
}

fn verb(command: &str) -> Vec<(&str, &str)> {
    vec![
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/ns"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/a:/b"),
    ]
}

#[test]
fn an_add_answers_in_the_version_of_its_configuration() {
    for version in Version::ALL {
        let (code, json, called) = execute(&verb("ADD"), &config(version.as_str(), json!({})));
        assert_eq!(code, 0);
        assert_eq!(faults(&json, version.as_str()), Vec::<String>::new());
        assert_eq!(called.unwrap(), "ADD c1 Some(NetworkNamespace { path: \"/ns\" }) eth0");
    }
}

#[test]
fn verbs_without_a_result_print_nothing() {
    let result =
        json!({"prevResult": {"cniVersion": "0.4.0", "ips": [{"version": "4", "address": "10.0.0.1/8"}]}});
    let (code, json, called) = execute(&verb("CHECK"), &config("0.4.0", result));
    assert_eq!((code, json, called.unwrap().as_str()), (0, Value::Null, "CHECK Some(1)"));
    let valid = json!({"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]});
    let (code, json, called) = execute(&[("CNI_COMMAND", "GC"), ("CNI_PATH", "/a")], &config("1.1.0", valid));
    assert_eq!((code, json, called.unwrap().as_str()), (0, Value::Null, "GC [(\"c1\", \"eth0\")] [\"/a\"]"));
    let (code, json, called) = execute(&[("CNI_COMMAND", "STATUS")], &config("1.1.0", json!({})));
    assert_eq!((code, json, called.unwrap().as_str()), (0, Value::Null, "STATUS net"));
}

#[test]
fn a_failure_is_exit_code_1_and_an_error_on_standard_output() {
    let (code, json, called) = execute(&verb("DEL"), &config("1.0.0", json!({})));
    let error = json!({"cniVersion": "1.0.0", "code": 123, "msg": "still there", "details": "all of it"});
    assert_eq!((code, json, called.unwrap().as_str()), (1, error, "DEL c1 false"));
    // Without a namespace there is still something to take back.
    let without: Vec<_> = verb("DEL").into_iter().filter(|(name, _)| *name != "CNI_NETNS").collect();
    assert!(execute(&without, &config("1.0.0", json!({}))).2.is_some());
}

#[test]
fn version_is_answered_whatever_is_asked_with() {
    for (stdin, version) in
        [("", "1.1.0"), ("{\"cniVersion\": \"0.4.0\"}", "0.4.0"), ("{\"cniVersion\": \"7\"}", "1.1.0")]
    {
        let (code, json, _) = execute(&[("CNI_COMMAND", "VERSION")], stdin);
        let told = json!({"cniVersion": version, "supportedVersions": ["0.4.0", "1.0.0", "1.1.0"]});
        assert_eq!((code, json), (0, told));
    }
}

#[test]
fn what_is_wrong_with_a_call_is_told_before_the_plugin_is_called() {
    let good = config("1.1.0", json!({}));
    let with = |name: &'static str, value: &'static str| {
        let mut all = verb("ADD");
        all.retain(|(known, _)| *known != name);
        all.push((name, value));
        all
    };
    for (environment, stdin, expected) in [
        (vec![], good.clone(), code::INVALID_ENVIRONMENT),
        (verb("PAINT"), good.clone(), code::INVALID_ENVIRONMENT),
        (with("CNI_NETNS", ""), good.clone(), code::INVALID_ENVIRONMENT),
        (with("CNI_CONTAINERID", "../x"), good.clone(), code::INVALID_ENVIRONMENT),
        (with("CNI_IFNAME", "much-too-long-for-it"), good.clone(), code::INVALID_ENVIRONMENT),
        (with("CNI_ARGS", "COLOUR=red"), good.clone(), code::INVALID_ENVIRONMENT),
        (verb("ADD"), String::new(), code::DECODING),
        (verb("ADD"), "[]".to_owned(), code::INVALID_CONFIG),
        (verb("ADD"), config("0.3.1", json!({})), code::INCOMPATIBLE_VERSION),
        (verb("ADD"), config("2.0.0", json!({})), code::INCOMPATIBLE_VERSION),
        (verb("ADD"), config("1.1.0", json!({"name": "a b"})), code::INVALID_CONFIG),
        (verb("ADD"), config("1.1.0", json!({"type": "painter"})), code::INVALID_CONFIG),
        (verb("ADD"), config("1.1.0", json!({"prevResult": 1})), code::DECODING),
        (verb("ADD"), config("1.1.0", json!({"runtimeConfig": 1})), code::INVALID_CONFIG),
        (verb("CHECK"), good.clone(), code::INVALID_CONFIG),
        (verb("GC"), good.clone(), code::INVALID_CONFIG),
        (verb("GC"), config("1.0.0", json!({"cni.dev/valid-attachments": []})), code::INCOMPATIBLE_VERSION),
        (verb("STATUS"), config("0.4.0", json!({})), code::INCOMPATIBLE_VERSION),
    ] {
        let (code, json, called) = execute(&environment, &stdin);
        assert_eq!((code, &json["code"], called), (1, &json!(expected), None), "{environment:?} {stdin}");
        assert!(json["msg"].as_str().is_some_and(|msg| !msg.is_empty()));
        if expected == code::INCOMPATIBLE_VERSION {
            assert_eq!(json["details"], "the supported ones are 0.4.0, 1.0.0, 1.1.0");
        }
    }
}

#[test]
fn a_gc_of_one_who_has_no_attachments_is_one_of_everything() {
    let none = json!({"cni.dev/valid-attachments": null});
    let (code, _, called) = execute(&[("CNI_COMMAND", "GC")], &config("1.1.0", none));
    assert_eq!((code, called.unwrap().as_str()), (0, "GC [] []"));
}
