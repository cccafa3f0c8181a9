//! loopback.

use std::net::IpAddr;

use coracle_cni::code;
use serde_json::json;

use crate::harness::{Pod, add, on_a_node, reaches};

#[test]
fn the_loopback_comes_up_and_goes_down() {
    on_a_node(|_| {
        let config = json!({"cniVersion": "1.1.0", "name": "lo", "type": "loopback"});
        let pod = Pod::new("one");
        let result = pod.add(&config).unwrap();
        let [lo] = result.interfaces.as_slice() else { panic!("{result:?}") };
        assert_eq!(
            (lo.name.as_str(), lo.mac.as_str(), &lo.sandbox),
            ("lo", "00:00:00:00:00:00", &pod.place.path)
        );
        let addresses: Vec<_> = result.ips.iter().map(|ip| ip.address.to_string()).collect();
        assert_eq!(addresses, ["127.0.0.1/8", "::1/128"]);
        for address in ["127.0.0.1", "::1"] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(reaches(&pod.place, &pod.place, address), address);
        }
        pod.check(&config, &result).unwrap();

        // In a chain the result of the plugins before it is handed on.
        let before = coracle_cni::AddResult { ips: result.ips[..1].to_vec(), ..Default::default() };
        assert_eq!(add(&pod.call_after(&config, &before)).unwrap(), before);

        pod.place.run("ip address del 127.0.0.1/8 dev lo");
        assert_eq!(pod.check(&config, &result).unwrap_err().code, code::CHECK_FAILED);
        for _ in 0..2 {
            pod.del(&config).unwrap();
        }
        assert!(pod.place.run("ip -o link show lo").contains("state DOWN"));
        assert!(pod.check(&config, &result).unwrap_err().msg.contains("lo is down"));
        let mut gone = pod.call(&config);
        gone.netns = Some(coracle_cni::NetworkNamespace::new("/proc/self/ns/none"));
        coracle_cni_plugins::PLUGINS.del("loopback", &gone).unwrap();
    });
}
