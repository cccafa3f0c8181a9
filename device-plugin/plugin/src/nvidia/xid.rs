//! XIDs as the driver tells them to the kernel's log, for where its library cannot be asked.

/// An error of a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Xid {
    /// The GPU's address as sysfs writes it.
    pub(crate) address: String,
    /// Which error.
    pub(crate) number: u64,
}

/// The XID a line of the kernel's log tells: `NVRM: Xid (PCI:0000:3b:00): 79, pid=1, GPU has fallen off the bus.`
pub(crate) fn parse(line: &str) -> Option<Xid> {
    let (_, rest) = line.split_once("NVRM: Xid (PCI:")?;
    let (address, rest) = rest.split_once("): ")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let number = rest.get(..digits)?.parse().ok()?;
    let parts: Vec<&str> = address.split(':').collect();
    let [domain, bus, device] = parts[..] else { return None };
    // With the function where a driver has more than one.
    let (device, function) = device.split_once('.').unwrap_or((device, "0"));
    let hexadecimal = |text: &str| u32::from_str_radix(text, 16).ok();
    let (domain, bus, device) = (hexadecimal(domain)?, hexadecimal(bus)?, hexadecimal(device)?);
    Some(Xid { address: format!("{domain:04x}:{bus:02x}:{device:02x}.{}", hexadecimal(function)?), number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernels_log() {
        let xid = |address: &str, number| Some(Xid { address: address.to_owned(), number });
        assert_eq!(
            parse("4,1,2,-;NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', GPU has fallen off the bus."),
            xid("0000:3b:00.0", 79)
        );
        assert_eq!(parse("NVRM: Xid (PCI:0001:AF:00): 31, pid=1"), xid("0001:af:00.0", 31));
        assert_eq!(parse("NVRM: Xid (PCI:0000:3b:00.1): 13"), xid("0000:3b:00.1", 13));
        for line in [
            "",
            "NVRM: Xid (PCI:",
            "NVRM: Xid (PCI:0000:3b): 1",
            "NVRM: Xid (PCI:x:y:z): 1",
            "NVRM: Xid (PCI:0000:3b:00): x",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
