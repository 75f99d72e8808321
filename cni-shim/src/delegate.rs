//! Delegation to an IPAM plugin: found in `CNI_PATH`, run with our own parameters and configuration, answered as any
//! plugin answers (CNI specification, section 4).

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rscni_plugin::error::Error as CniError;
use rscni_plugin::types::{Args, CNIResult, CNIResultWithVersion, Cmd, ErrorResult};
use serde_json::Value;

/// Longest answer of a plugin that is looked at, in bytes, when it makes no sense.
const EXCERPT: usize = 200;

/// The IPAM plugin of one invocation.
#[derive(Debug)]
pub struct Delegate {
    name: String,
    executable: PathBuf,
    config: Vec<u8>,
}

impl Delegate {
    /// Looks for `name` in the directories of `CNI_PATH`, in their order.
    pub fn find(name: &str, args: &Args) -> Result<Self, CniError> {
        let executable =
            args.path().iter().map(|directory| directory.join(name)).find(|file| file.is_file()).ok_or_else(
                || {
                    let path: Vec<_> =
                        args.path().iter().map(|directory| directory.display().to_string()).collect();
                    CniError::InvalidNetworkConfig(format!(
                        "ipam.type: no plugin {name:?} in CNI_PATH ({})",
                        path.join(":")
                    ))
                },
            )?;
        Ok(Self { name: name.to_owned(), executable, config: config(args)? })
    }

    /// ADD: the addresses the plugin gives.
    pub fn add(&self) -> Result<CNIResult, CniError> {
        let answer = self.run(Cmd::Add)?;
        read_result(&answer).map_err(|problem| {
            CniError::FailedToDecode(format!("{}: {problem}: {}", self.name, excerpt(&answer)))
        })
    }

    /// Any operation that has no result.
    pub fn call(&self, operation: Cmd) -> Result<(), CniError> {
        self.run(operation).map(drop)
    }

    fn run(&self, operation: Cmd) -> Result<Vec<u8>, CniError> {
        let failed = |error: io::Error| {
            CniError::IOFailure(format!(
                "run {} {}: {error}",
                self.executable.display(),
                <&str>::from(operation)
            ))
        };
        let mut child = Command::new(&self.executable)
            .env("CNI_COMMAND", <&str>::from(operation))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            match stdin.write_all(&self.config) {
                // It ended without reading: its exit and its answer say why.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                written => written.map_err(failed)?,
            }
        }
        let output = child.wait_with_output().map_err(failed)?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(match serde_json::from_slice::<ErrorResult>(&output.stdout) {
            Ok(error) => prefixed(&self.name, error.into()),
            Err(_) => CniError::IOFailure(format!(
                "{} {}: {}: {}",
                self.name,
                <&str>::from(operation),
                output.status,
                excerpt(&output.stdout)
            )),
        })
    }
}

/// The configuration as the runtime gave it. A `prevResult` of before 1.0 needs the family of each address, which the
/// types do not keep.
fn config(args: &Args) -> Result<Vec<u8>, CniError> {
    let encode = |error: serde_json::Error| CniError::FailedToDecode(error.to_string());
    let mut config = serde_json::to_value(args.config()).map_err(encode)?;
    if args.config().version()?.is_legacy() {
        let ips = config.pointer_mut("/prevResult/ips").and_then(Value::as_array_mut);
        for ip in ips.into_iter().flatten().filter_map(Value::as_object_mut) {
            let six = ip.get("address").and_then(Value::as_str).is_some_and(|address| address.contains(':'));
            ip.insert("version".to_owned(), if six { "6" } else { "4" }.into());
        }
    }
    serde_json::to_vec(&config).map_err(encode)
}

/// A result as plugins print it, in any layout since 0.3.0.
pub fn read_result(answer: &[u8]) -> Result<CNIResult, String> {
    let result: CNIResultWithVersion = serde_json::from_slice(answer).map_err(|error| error.to_string())?;
    Ok(result.into_result())
}

/// The plugin's error, with its name in front of the details.
fn prefixed(name: &str, error: CniError) -> CniError {
    let details = match error.details() {
        "" => format!("{name}: {}", error.msg()),
        details => format!("{name}: {details}"),
    };
    match error {
        CniError::IncompatibleVersion(_) => CniError::IncompatibleVersion(details),
        CniError::UnsupportedNetworkConfiguration(_) => CniError::UnsupportedNetworkConfiguration(details),
        CniError::NotExist(_) => CniError::NotExist(details),
        CniError::InvalidEnvValue(_) => CniError::InvalidEnvValue(details),
        CniError::IOFailure(_) => CniError::IOFailure(details),
        CniError::FailedToDecode(_) => CniError::FailedToDecode(details),
        CniError::InvalidNetworkConfig(_) => CniError::InvalidNetworkConfig(details),
        CniError::InvalidNetNS(_) => CniError::InvalidNetNS(details),
        CniError::TryAgainLater(_) => CniError::TryAgainLater(details),
        CniError::PluginNotAvailable(_) => CniError::PluginNotAvailable(details),
        CniError::PluginNotAvailableLimitedConnectivity(_) => {
            CniError::PluginNotAvailableLimitedConnectivity(details)
        }
        CniError::Custom(code, msg, _) => CniError::Custom(code, msg, details),
        other => other,
    }
}

fn excerpt(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(&answer[..answer.len().min(EXCERPT)]);
    if text.trim().is_empty() { "(no output)".to_owned() } else { text.trim().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_every_layout_are_read() {
        let old = r#"{"cniVersion":"0.3.1","ips":[{"version":"4","address":"10.0.0.5/24","gateway":"10.0.0.1"}],
                      "routes":[{"dst":"0.0.0.0/0"}],"dns":{}}"#;
        let new = r#"{"cniVersion":"1.1.0","ips":[{"address":"10.0.0.5/24"},{"address":"fd00::5/64"}]}"#;
        assert_eq!(read_result(old.as_bytes()).unwrap().ips[0].address.to_string(), "10.0.0.5/24");
        assert_eq!(read_result(new.as_bytes()).unwrap().ips.len(), 2);
        for wrong in ["", "{}", "[]", r#"{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.300/24"}]}"#] {
            assert!(read_result(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_plugins_error_keeps_its_code() {
        for code in [1, 2, 3, 4, 5, 6, 7, 8, 11, 50, 51, 99, 100, 999] {
            let text = format!(r#"{{"cniVersion":"1.0.0","code":{code},"msg":"no","details":"because"}}"#);
            let error = prefixed("dhcp", serde_json::from_str::<ErrorResult>(&text).unwrap().into());
            assert_eq!(u32::from(&error), code);
            assert_eq!(error.details(), "dhcp: because");
        }
    }
}
