//! Running other programs, and waiting for conditions.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// How much of a failed command's output an error quotes, in bytes.
const QUOTED_MAX: usize = 1500;

/// Runs a command to its end and gives its standard output. A failure is an error that quotes what it wrote.
pub fn run(command: &mut Command) -> Result<String> {
    let output = output(command, "")?;
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(failure(command, &output)) }
}

/// Runs a command to its end with `input` on its standard input, whatever its exit status.
pub fn output(command: &mut Command, input: &str) -> Result<Output> {
    command.stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() });
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| Error::Start { program: line(command), source })?;
    // What is written here fits a pipe's buffer, so this cannot wait for a reader that waits for us. A program that
    // does not read its input closes the pipe: that is its choice.
    if let Some(mut pipe) = child.stdin.take() {
        let _unread = pipe.write_all(input.as_bytes());
    }
    child.wait_with_output().map_err(|source| Error::Start { program: line(command), source })
}

/// The error for a command that ended with a failure.
pub(crate) fn failure(command: &Command, output: &Output) -> Error {
    let both = format!("{} {}", text(&output.stderr).trim(), text(&output.stdout).trim());
    let mut start = both.len().saturating_sub(QUOTED_MAX);
    while !both.is_char_boundary(start) {
        start += 1;
    }
    Error::Command {
        line: line(command),
        status: output.status.to_string(),
        output: both[start..].trim().to_owned(),
    }
}

/// A command as one would type it.
pub(crate) fn line(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Asks `probe` every few milliseconds until it gives a value, at most for `limit`. The text of its last failure goes
/// into the error.
pub fn wait_for<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match probe() {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() >= limit => {
                return Err(Error::Timeout { what: what.to_owned(), waited: limit, last: error.to_string() });
            }
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// As [`wait_for`], for a plain condition.
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    wait_for(what, limit, || if condition() { Ok(()) } else { Err(Error::other("not yet")) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_quotes_the_command_and_its_words() {
        let error = run(Command::new("sh").args(["-c", "echo no >&2; exit 3"])).unwrap_err().to_string();
        assert!(
            error.contains("sh -c echo no") && error.contains(": 3)") && error.ends_with("no"),
            "{error}"
        );
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run(&mut Command::new("vswitch-no-such-program")).unwrap_err().to_string();
        assert!(error.contains("vswitch-no-such-program"), "{error}");
    }

    #[test]
    fn input_reaches_the_command() {
        let seen = output(Command::new("cat").arg("-"), "a line").unwrap();
        assert_eq!(seen.stdout, b"a line");
    }

    #[test]
    fn a_condition_that_never_holds_ends_in_time() {
        let error = wait_until("the moon", Duration::from_millis(30), || false).unwrap_err().to_string();
        assert!(error.contains("the moon"), "{error}");
    }
}
