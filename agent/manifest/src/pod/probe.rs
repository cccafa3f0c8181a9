//! `startupProbe`, `livenessProbe` and `readinessProbe`.

use coracle_document::{Faults, Path};
use std::time::Duration;

use coracle_model::{Probe, ProbeKind, Probes};
use k8s_openapi::api::core::v1;

use super::handler;

/// `None` when one of them has a fault.
pub(super) fn convert_all(
    startup: Option<&mut v1::Probe>,
    liveness: Option<&mut v1::Probe>,
    readiness: Option<&mut v1::Probe>,
    container: &Path<'_>,
    faults: &mut Faults,
) -> Option<Probes> {
    let mut read = |probe: Option<&mut v1::Probe>, kind, field| match probe {
        None => Some(None),
        Some(probe) => convert(probe, kind, &container.child(field), faults).map(Some),
    };
    let startup = read(startup, ProbeKind::Startup, "startupProbe");
    let liveness = read(liveness, ProbeKind::Liveness, "livenessProbe");
    let readiness = read(readiness, ProbeKind::Readiness, "readinessProbe");
    Some(Probes { startup: startup?, liveness: liveness?, readiness: readiness? })
}

fn convert(probe: &mut v1::Probe, kind: ProbeKind, path: &Path<'_>, faults: &mut Faults) -> Option<Probe> {
    let v1::Probe {
        exec,
        failure_threshold,
        grpc,
        http_get,
        initial_delay_seconds,
        period_seconds,
        success_threshold,
        tcp_socket,
        termination_grace_period_seconds,
        timeout_seconds,
    } = probe;

    let fields = handler::Fields {
        exec: exec.as_ref(),
        http_get: http_get.as_mut(),
        tcp_socket: tcp_socket.as_ref(),
        grpc: grpc.as_mut(),
        sleep: None,
    };
    let handler = handler::convert(fields, path, faults);

    let mut number = |value: &mut Option<i32>, default, field| {
        // To Kubernetes 0 is the same as no number.
        let value = value.filter(|value| *value != 0).unwrap_or(default);
        if value < 0 {
            faults.invalid_plain(&path.child(field), value, "must be greater than or equal to 0");
        }
        u32::try_from(value).ok()
    };
    let initial_delay = number(initial_delay_seconds, 0, "initialDelaySeconds");
    let timeout = number(timeout_seconds, 1, "timeoutSeconds");
    let period = number(period_seconds, 10, "periodSeconds");
    let success = number(success_threshold, 1, "successThreshold");
    let failure = number(failure_threshold, 3, "failureThreshold");
    for (field, number) in [
        (timeout_seconds, timeout),
        (period_seconds, period),
        (success_threshold, success),
        (failure_threshold, failure),
    ] {
        *field = number.and_then(|number| i32::try_from(number).ok());
    }
    if let Some(threshold) = success.filter(|threshold| kind != ProbeKind::Readiness && *threshold != 1) {
        faults.invalid_plain(&path.child("successThreshold"), threshold, "must be 1");
    }

    let grace_path = path.child("terminationGracePeriodSeconds");
    let grace = termination_grace_period_seconds.map(|seconds| {
        if seconds <= 0 {
            faults.invalid_plain(&grace_path, seconds, "must be greater than 0");
        }
        if kind == ProbeKind::Readiness {
            faults.invalid_plain(&grace_path, seconds, "must not be set for readinessProbes");
        }
        u64::try_from(seconds).ok().map(Duration::from_secs)
    });
    let termination_grace_period = match grace {
        None => None,
        Some(grace) => Some(grace?),
    };

    let seconds = |number: u32| Duration::from_secs(number.into());
    Some(Probe {
        handler: handler?,
        initial_delay: seconds(initial_delay?),
        timeout: seconds(timeout?),
        period: seconds(period?),
        success_threshold: success?,
        failure_threshold: failure?,
        termination_grace_period,
    })
}
