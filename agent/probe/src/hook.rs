//! Lifecycle hooks: `postStart` and `preStop`.

use std::time::Duration;

use coracle_model::{Container, EventType, Handler, HttpGet, Scheme};
use tokio::time::{Instant, sleep, timeout};

use crate::check::{Checker, Stop, get, timed_out};
use crate::error::Error;
use crate::node::{Node, Target, Telling};
use crate::words;

/// Carries out a hook, for at most `limit` if there is one.
///
/// A GET request succeeds with any response, whatever its status, as in the kubelet; one by HTTPS that meets a
/// plain server is made again without TLS. `tcpSocket` is in the API and has never been carried out.
///
/// # Errors
/// A sentence in the kubelet's words that says what failed and how.
pub async fn run_hook<N: Node>(
    checker: &Checker,
    node: &N,
    target: &Target,
    handler: &Handler,
    limit: Option<Duration>,
) -> Result<(), String> {
    let (name, pod) = (&target.container, &target.pod);
    let whose = format!("for Container {:?} in Pod {:?} failed", name.as_str(), pod_format(target));
    let Some(container) = pod.container(name.as_str()) else {
        return Err(format!("the pod has no container {name}"));
    };
    match handler {
        Handler::Exec(command) => exec(node, target, command, limit).await.map_err(|failed| {
            format!("Exec lifecycle hook ({}) {whose} - error: {failed}", words::list(command))
        }),
        Handler::HttpGet(spec) => http(checker, node, target, container, spec, limit)
            .await
            .map_err(|failed| format!("HTTP lifecycle hook ({}) {whose} - error: {failed}", spec.path)),
        Handler::Sleep(duration) => match limit.filter(|limit| limit < duration) {
            None => {
                sleep(*duration).await;
                Ok(())
            }
            Some(limit) => {
                sleep(limit).await;
                let failed = "container terminated before sleep hook finished";
                Err(format!("Sleep lifecycle hook ({}) {whose} - error: {failed}", duration.as_secs()))
            }
        },
        Handler::TcpSocket(_) => Err("Cannot run handler: invalid handler: tcpSocket".to_owned()),
        Handler::Grpc(_) => Err("Cannot run handler: invalid handler: grpc".to_owned()),
    }
}

async fn exec<N: Node>(
    node: &N,
    target: &Target,
    command: &[String],
    limit: Option<Duration>,
) -> Result<(), String> {
    let run = node.exec(target, command.to_vec(), true);
    let ended = match limit {
        None => run.await,
        Some(limit) => timeout(limit, run).await.map_err(|_| timed_out(command))?,
    }?;
    if ended.code == 0 {
        return Ok(());
    }
    let output = String::from_utf8_lossy(&ended.output);
    Err(format!("command '{}' exited with {}, message: {output:?}", command.join(" "), ended.code))
}

async fn http<N: Node>(
    checker: &Checker,
    node: &N,
    target: &Target,
    container: &Container,
    spec: &HttpGet,
    limit: Option<Duration>,
) -> Result<(), String> {
    let deadline = limit.map(|limit| Instant::now() + limit);
    let mut asked = get(checker, node, target, container, spec, "lifecycle", deadline).await;
    if let Err(Stop::Failed(url, Error::PlainServer)) = &asked {
        let at = url.authority.clone();
        // Not sent in the clear, who expected TLS.
        let mut headers = spec.headers.clone();
        headers.retain(|(name, _)| !name.eq_ignore_ascii_case("Authorization"));
        let plain = HttpGet { scheme: Scheme::Http, headers, ..spec.clone() };
        let again = get(checker, node, target, container, &plain, "lifecycle", deadline).await;
        if again.is_ok() {
            let message =
                format!("request to HTTPS lifecycle hook {at} got HTTP response, retry with HTTP succeeded");
            node.tell(target, Telling { kind: EventType::Warning, reason: "LifecycleHTTPFallback", message });
            asked = again;
        }
    }
    match asked {
        Ok(asked) if asked.redirected_too_far => Err(Error::TooManyRedirects.to_string()),
        // It was answered, and that is all.
        Ok(_) | Err(Stop::BrokenBody(_) | Stop::SlowBody) => Ok(()),
        Err(stop) => Err(stop.to_string()),
    }
}

/// As the kubelet names a pod: `name_namespace(uid)`.
fn pod_format(target: &Target) -> String {
    let pod = &target.pod;
    format!("{}_{}({})", pod.key.name, pod.key.namespace, pod.uid)
}
