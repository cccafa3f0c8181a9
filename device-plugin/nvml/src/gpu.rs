//! GPUs and their partitions.

use nvml_wrapper::error::NvmlError as Cause;
use nvml_wrapper::{Device, Nvml};

use crate::{NvmlError, ask};

/// No GPU has more NVLinks (`NVML_NVLINK_MAX_LINKS`).
const MOST_LINKS: u32 = 18;
/// NVML's `NVML_SUCCESS`.
const SUCCESS: u32 = 0;

/// A GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// The number of its node: `/dev/nvidia<minor>`.
    pub minor: u32,
    /// `GPU-` and a UUID.
    pub uuid: String,
    /// The product's name.
    pub model: String,
    /// Its address as sysfs writes it: `0000:3b:00.0`.
    pub address: String,
    /// Its partitions; `None` unless it is in MIG mode.
    pub partitions: Option<Vec<Mig>>,
    /// For each active NVLink, the address of what is at its other end.
    pub links: Vec<String>,
}

/// A partition of a GPU (MIG device).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mig {
    /// `MIG-` and a UUID.
    pub uuid: String,
    /// Its size, as NVIDIA writes it: `1g.10gb`, `1c.3g.40gb`, `1g.10gb+me`.
    pub profile: String,
    /// Its GPU instance.
    pub gpu_instance: u32,
    /// Its compute instance in that.
    pub compute_instance: u32,
}

pub(crate) fn list(library: &Nvml) -> Result<(Vec<Gpu>, Vec<NvmlError>), NvmlError> {
    let count = library.device_count().map_err(ask("the number of GPUs"))?;
    let (mut found, mut failed) = (Vec::new(), Vec::new());
    for index in 0..count {
        match gpu(library, index) {
            Ok(gpu) => found.push(gpu),
            Err(error) => failed.push(error),
        }
    }
    Ok((found, failed))
}

fn gpu(library: &Nvml, index: u32) -> Result<Gpu, NvmlError> {
    let of = |what: &str| format!("{what} of GPU {index}");
    let device = library.device_by_index(index).map_err(ask(format!("GPU {index}")))?;
    Ok(Gpu {
        minor: device.minor_number().map_err(ask(of("the minor number")))?,
        uuid: device.uuid().map_err(ask(of("the UUID")))?,
        model: device.name().map_err(ask(of("the name")))?,
        address: address(&device.pci_info().map_err(ask(of("the address")))?.bus_id),
        partitions: partitions(&device, index)?,
        links: links(&device),
    })
}

/// The address as sysfs writes it. NVML gives the domain eight digits, and capitals.
fn address(bus_id: &str) -> String {
    let lower = bus_id.to_ascii_lowercase();
    let parsed =
        lower.split_once(':').and_then(|(domain, rest)| Some((u32::from_str_radix(domain, 16).ok()?, rest)));
    match parsed {
        Some((domain, rest)) => format!("{domain:04x}:{rest}"),
        None => lower,
    }
}

fn partitions(device: &Device<'_>, index: u32) -> Result<Option<Vec<Mig>>, NvmlError> {
    let of = |what: &str| format!("{what} of GPU {index}");
    match device.mig_mode() {
        Ok(mode) if mode.current != 0 => {}
        // One that cannot be partitioned, or a driver older than partitions.
        Ok(_) | Err(Cause::NotSupported | Cause::FailedToLoadSymbol(_)) => return Ok(None),
        Err(error) => return Err(ask(of("the MIG mode"))(error)),
    }
    let most = device.mig_device_count().map_err(ask(of("the number of MIG devices")))?;
    let mut found = Vec::new();
    for number in 0..most {
        let device = match device.mig_device_by_index(number) {
            Ok(device) => device,
            Err(Cause::NotFound) => continue,
            Err(error) => return Err(ask(of(&format!("MIG device {number}")))(error)),
        };
        let name = device.name().map_err(ask(of(&format!("the name of MIG device {number}"))))?;
        let (gpu_instance, compute_instance) = instances(&device)?;
        found.push(Mig {
            uuid: device.uuid().map_err(ask(of(&format!("the UUID of MIG device {number}"))))?,
            profile: profile(&name).to_owned(),
            gpu_instance,
            compute_instance,
        });
    }
    Ok(Some(found))
}

/// The size of a partition, with which its name ends: `NVIDIA A100-SXM4-40GB MIG 1g.5gb`.
fn profile(name: &str) -> &str {
    name.rsplit_once("MIG ").map_or(name, |(_, profile)| profile.trim())
}

/// Which GPU instance and compute instance a partition is: what names its nodes. The library's wrapper lacks both functions.
fn instances(device: &Device<'_>) -> Result<(u32, u32), NvmlError> {
    let missing = |what| move |_: &_| NvmlError::Raw { what, code: "there is no such function".to_owned() };
    let failed = |what, code: u32| match code {
        SUCCESS => Ok(()),
        code => Err(NvmlError::Raw { what, code: format!("error {code}") }),
    };
    let library = device.nvml().lib();
    // SAFETY: the handle is used below only, while the device it is of is borrowed.
    let handle = unsafe { device.handle() };
    let (mut gpu, mut compute) = (0, 0);
    let what = "the GPU instance of a MIG device";
    let ask = library.nvmlDeviceGetGpuInstanceId.as_ref().map_err(missing(what))?;
    // SAFETY: the function is NVML's (since 450), the handle is a live device's, and it writes one number.
    failed(what, unsafe { ask(handle, &raw mut gpu) })?;
    let what = "the compute instance of a MIG device";
    let ask = library.nvmlDeviceGetComputeInstanceId.as_ref().map_err(missing(what))?;
    // SAFETY: as above.
    failed(what, unsafe { ask(handle, &raw mut compute) })?;
    Ok((gpu, compute))
}

/// The other ends of its links. A GPU without any, and one that does not say, has none.
fn links(device: &Device<'_>) -> Vec<String> {
    let links = (0..MOST_LINKS).map(|number| device.link_wrapper_for(number));
    let active = links.filter(|link| link.is_active().unwrap_or_default());
    active.filter_map(|link| link.remote_pci_info().ok()).map(|info| address(&info.bus_id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_sysfs() {
        assert_eq!(address("00000000:3B:00.0"), "0000:3b:00.0");
        assert_eq!(address("00000001:AF:00.0"), "0001:af:00.0");
        assert_eq!(address("00010000:AF:00.0"), "10000:af:00.0");
        assert_eq!(address("0000:3b:00.0"), "0000:3b:00.0");
    }

    #[test]
    fn a_partitions_name_ends_with_its_profile() {
        assert_eq!(profile("NVIDIA A100-SXM4-40GB MIG 1g.5gb"), "1g.5gb");
        assert_eq!(profile("NVIDIA H100 80GB HBM3 MIG 1g.10gb+me"), "1g.10gb+me");
    }
}
