//! The configuration file of `vswitchd`: what one node's engine needs beyond desired state.
//!
//! TOML, every field optional; an engine with an empty file is a node alone, without an uplink. An error names the
//! file, the line, the field and what would be right.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Spanned, Value};
use vswitch_model::PortName;

/// Where the file is looked for when nobody says.
pub const DEFAULT_PATH: &str = "/etc/vswitch/vswitchd.toml";

/// Workers of one engine.
pub const WORKERS_MAX: usize = 64;
/// Frames of the UMEM, 2048 bytes each; the least is for each worker.
pub const FRAMES: RangeInclusive<u32> = 1024..=4_194_304;
/// Flows of one worker.
pub const FLOWS: RangeInclusive<u32> = 1024..=33_554_432;
/// Fragmented packets followed at once by one worker.
pub const FRAGMENTS: RangeInclusive<u32> = 16..=65_536;
/// ICMP errors one worker sends in a second.
pub const ICMP_ERRORS: RangeInclusive<u32> = 1..=1_000_000;
/// Longest path of a unix socket in bytes (unix(7): 108 with the zero behind it).
const SOCKET_PATH_MAX: usize = 107;
/// Flows one worker tells of in a second.
pub const FLOW_LOG: RangeInclusive<u32> = 0..=100_000;

/// What a worker does when no packet waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Poll {
    /// Looks again at once: the lowest delay, and a core that is always busy.
    Busy,
    /// Looks again at once for a while, then sleeps until a port has something: an idle engine costs nothing.
    #[default]
    Adaptive,
}

/// One engine's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Interfaces of the underlay the engine opens. None: a node alone.
    pub uplinks: Vec<PortName>,
    /// Name of the tun device by which the node and its pods reach each other.
    pub host_port: PortName,
    /// Cores the workers are pinned to, a worker on each. Empty: one worker, where the kernel puts it.
    pub cores: Vec<usize>,
    /// What workers do when no packet waits.
    pub poll: Poll,
    /// Frames of the UMEM, 2048 bytes each, shared by all ports.
    pub frames: u32,
    /// Flows a worker can follow.
    pub flows: u32,
    /// Fragmented packets a worker can follow at once.
    pub fragments: u32,
    /// ICMP errors a worker sends in a second, at most: to pods, to pods whose packets are too big, and to all others, so many each.
    pub icmp_errors_per_second: u32,
    /// How many of these because of one sender.
    pub icmp_errors_per_source: u32,
    /// New flows that are denied, or marked by a rule that logs, a worker tells of in a second, at most. 0: of none.
    pub flow_log_per_second: u32,
    /// Whether TCP segments outside of their connection's window are dropped. False, the liberal mode: sequence numbers are
    /// not followed, which is for both ends to do.
    pub tcp_windows: bool,
    /// Unix socket of the engine API.
    pub api_socket: PathBuf,
    /// Where the applied state is kept.
    pub state_file: PathBuf,
    /// Where metrics are served over HTTP (`GET /metrics`). None: nowhere.
    pub metrics: Option<SocketAddr>,
    /// What is logged: `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,vswitch=debug`.
    pub log: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            uplinks: Vec::new(),
            host_port: PortName::new("vswitch0").expect("a valid name"),
            cores: Vec::new(),
            poll: Poll::default(),
            frames: 32_768,
            flows: 262_144,
            fragments: 1024,
            icmp_errors_per_second: 1000,
            icmp_errors_per_source: 100,
            flow_log_per_second: 100,
            tcp_windows: true,
            api_socket: PathBuf::from("/run/vswitch/engine.sock"),
            state_file: PathBuf::from("/var/lib/vswitch/engine.state"),
            metrics: None,
            log: "info".to_owned(),
        }
    }
}

impl Config {
    /// The file that says all of it, a field a line.
    #[must_use]
    pub fn to_toml(&self) -> String {
        self.fields().iter().map(|(field, value)| format!("{field} = {value}\n")).collect()
    }

    /// Its fields, in the order of the documentation, with their values.
    #[must_use]
    pub fn fields(&self) -> Vec<(&'static str, Value)> {
        let path = |path: &Path| Value::from(path.display().to_string());
        let poll = match self.poll {
            Poll::Busy => "busy",
            Poll::Adaptive => "adaptive",
        };
        let uplinks = self.uplinks.iter().map(PortName::as_str).collect::<Vec<_>>();
        let cores =
            self.cores.iter().map(|core| i64::try_from(*core).unwrap_or(i64::MAX)).collect::<Vec<_>>();
        let mut fields = vec![
            ("uplink", Value::from(uplinks)),
            ("host_port", self.host_port.as_str().into()),
            ("cores", cores.into()),
            ("poll", poll.into()),
            ("frames", self.frames.into()),
            ("flows", self.flows.into()),
            ("fragments", self.fragments.into()),
            ("icmp_errors_per_second", self.icmp_errors_per_second.into()),
            ("icmp_errors_per_source", self.icmp_errors_per_source.into()),
            ("flow_log_per_second", self.flow_log_per_second.into()),
            ("tcp_windows", self.tcp_windows.into()),
            ("api_socket", path(&self.api_socket)),
            ("state_file", path(&self.state_file)),
        ];
        fields.extend(self.metrics.map(|address| ("metrics", address.to_string().into())));
        fields.push(("log", self.log.as_str().into()));
        fields
    }
}

/// Why a configuration is refused. Prints as `FILE:LINE: FIELD: problem`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The file, as it was named.
    pub file: PathBuf,
    /// The line, from 1, when one is to blame.
    pub line: Option<usize>,
    /// The field, when one is to blame.
    pub field: Option<&'static str>,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if let Some(field) = self.field {
            write!(f, " {field}:")?;
        }
        write!(f, " {}", self.problem)
    }
}

/// The file as written: every value with its place, so that a refusal can name the line.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    uplink: Option<Spanned<OneOrMore>>,
    host_port: Option<Spanned<String>>,
    cores: Option<Spanned<Vec<usize>>>,
    poll: Option<Spanned<Poll>>,
    frames: Option<Spanned<i64>>,
    flows: Option<Spanned<i64>>,
    fragments: Option<Spanned<i64>>,
    icmp_errors_per_second: Option<Spanned<i64>>,
    icmp_errors_per_source: Option<Spanned<i64>>,
    flow_log_per_second: Option<Spanned<i64>>,
    tcp_windows: Option<Spanned<bool>>,
    api_socket: Option<Spanned<PathBuf>>,
    state_file: Option<Spanned<PathBuf>>,
    metrics: Option<Spanned<String>>,
    log: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "an interface name such as \"eth0\", or a list of them")]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

/// A configuration, and where each of its fields was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// What it says.
    pub config: Config,
    file: PathBuf,
    lines: BTreeMap<&'static str, usize>,
}

impl Loaded {
    /// The defaults, where nobody wrote a file.
    #[must_use]
    pub fn defaults() -> Self {
        Self { config: Config::default(), file: DEFAULT_PATH.into(), lines: BTreeMap::new() }
    }

    /// Reads and checks a file, all but what depends on the machine ([`Loaded::check_machine`]).
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|error| ConfigError {
            file: file.to_owned(),
            line: None,
            field: None,
            problem: format!("cannot be read: {error}; `--config FILE` names another"),
        })?;
        Self::parse(file, &text)
    }

    /// The same for a text that is already here; `file` is only named in errors.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let written: Written = toml::from_str(text).map_err(|error| ConfigError {
            file: file.to_owned(),
            line: error.span().map(|span| line_of(text, span.start)),
            field: None,
            problem: with_key(text, &error),
        })?;
        let mut reader = Reader { file, text, lines: BTreeMap::new() };
        let config = reader.config(written)?;
        Ok(Self { config, file: file.to_owned(), lines: reader.lines })
    }

    /// Checks what depends on the machine: that the uplinks and the cores exist.
    pub fn check_machine(&self) -> Result<(), ConfigError> {
        self.check_uplinks()?;
        self.check_cores()
    }

    /// That the uplinks exist. An engine starts without, and takes them up when they come.
    pub fn check_uplinks(&self) -> Result<(), ConfigError> {
        let interfaces = interfaces();
        for uplink in &self.config.uplinks {
            if !interfaces.iter().any(|name| name == uplink.as_str()) {
                let there = interfaces.join(", ");
                return Err(self.refuse("uplink", format!("no interface {uplink} here; there are: {there}")));
            }
        }
        Ok(())
    }

    /// That the cores exist.
    pub fn check_cores(&self) -> Result<(), ConfigError> {
        let cores: Vec<_> =
            core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
        for core in &self.config.cores {
            if !cores.contains(core) {
                return Err(
                    self.refuse("cores", format!("no core {core} for this process; there are: {cores:?}"))
                );
            }
        }
        Ok(())
    }

    fn refuse(&self, field: &'static str, problem: String) -> ConfigError {
        let line = self.lines.get(field).copied();
        ConfigError { file: self.file.clone(), line, field: Some(field), problem }
    }
}

struct Reader<'a> {
    file: &'a Path,
    text: &'a str,
    lines: BTreeMap<&'static str, usize>,
}

impl Reader<'_> {
    fn config(&mut self, written: Written) -> Result<Config, ConfigError> {
        let mut config = Config::default();
        if let Some(uplink) = self.take("uplink", written.uplink) {
            config.uplinks = self.uplinks(uplink)?;
        }
        if let Some(name) = self.take("host_port", written.host_port) {
            config.host_port = self.name("host_port", name)?;
        }
        if let Some(cores) = self.take("cores", written.cores) {
            if cores.len() > WORKERS_MAX {
                let problem = format!("{} cores: at most {WORKERS_MAX} workers are possible", cores.len());
                return Err(self.refuse("cores", problem));
            }
            if let Some(twice) =
                cores.iter().find(|core| cores.iter().filter(|other| other == core).count() > 1)
            {
                return Err(self.refuse("cores", format!("core {twice} is named twice")));
            }
            config.cores = cores;
        }
        if config.uplinks.contains(&config.host_port) {
            let problem = format!("{} is an uplink; the host port is a device of its own", config.host_port);
            return Err(self.refuse("host_port", problem));
        }
        config.poll = self.take("poll", written.poll).unwrap_or(config.poll);
        config.frames = self.number("frames", written.frames, config.frames, FRAMES)?;
        let needed = FRAMES.start() * config.cores.len().max(1) as u32;
        if config.frames < needed {
            let (frames, workers) = (config.frames, config.cores.len());
            let problem = format!("{frames} are too few for {workers} workers, which need {needed} at least");
            return Err(self.refuse("frames", problem));
        }
        config.flows = self.number("flows", written.flows, config.flows, FLOWS)?;
        config.fragments = self.number("fragments", written.fragments, config.fragments, FRAGMENTS)?;
        let (icmp, most) = (written.icmp_errors_per_second, config.icmp_errors_per_second);
        config.icmp_errors_per_second = self.number("icmp_errors_per_second", icmp, most, ICMP_ERRORS)?;
        let (icmp, most) = (written.icmp_errors_per_source, config.icmp_errors_per_source);
        config.icmp_errors_per_source = self.number("icmp_errors_per_source", icmp, most, ICMP_ERRORS)?;
        let (log, most) = (written.flow_log_per_second, config.flow_log_per_second);
        config.flow_log_per_second = self.number("flow_log_per_second", log, most, FLOW_LOG)?;
        config.tcp_windows = self.take("tcp_windows", written.tcp_windows).unwrap_or(config.tcp_windows);
        config.api_socket = self.path("api_socket", written.api_socket, config.api_socket)?;
        config.state_file = self.path("state_file", written.state_file, config.state_file)?;
        let length = config.api_socket.as_os_str().len();
        if length > SOCKET_PATH_MAX {
            let problem =
                format!("{length} bytes are too many for the path of a socket: {SOCKET_PATH_MAX} at most");
            return Err(self.refuse("api_socket", problem));
        }
        if config.api_socket == config.state_file {
            return Err(self.refuse("state_file", "is the api_socket: each is a file of its own".to_owned()));
        }
        if let Some(metrics) = self.take("metrics", written.metrics) {
            let problem = || {
                format!(
                    "\"{metrics}\" is not an address and a port; \"127.0.0.1:9464\" or \"[::1]:9464\" would be right"
                )
            };
            config.metrics = Some(metrics.parse().map_err(|_| self.refuse("metrics", problem()))?);
        }
        if let Some(log) = self.take("log", written.log) {
            if let Some(word) = log.split(',').find(|word| !is_directive(word)) {
                let problem = format!(
                    "\"{word}\" is no level (error, warn, info, debug, trace or off); \"info\" or \"info,vswitch=debug\" would be right"
                );
                return Err(self.refuse("log", problem));
            }
            if let Err(error) = log.parse::<tracing_subscriber::EnvFilter>() {
                let problem =
                    format!("\"{log}\": {error}; \"info\" or \"info,vswitch=debug\" would be right");
                return Err(self.refuse("log", problem));
            }
            config.log = log;
        }
        Ok(config)
    }

    fn take<T>(&mut self, field: &'static str, value: Option<Spanned<T>>) -> Option<T> {
        let value = value?;
        self.lines.insert(field, line_of(self.text, value.span().start));
        Some(value.into_inner())
    }

    fn uplinks(&self, written: OneOrMore) -> Result<Vec<PortName>, ConfigError> {
        let names = match written {
            OneOrMore::One(name) => vec![name],
            OneOrMore::More(names) => names,
        };
        let mut uplinks: Vec<PortName> = Vec::new();
        for name in names {
            let name = self.name("uplink", name)?;
            if uplinks.contains(&name) {
                return Err(self.refuse("uplink", format!("{name} is named twice")));
            }
            uplinks.push(name);
        }
        Ok(uplinks)
    }

    fn name(&self, field: &'static str, name: String) -> Result<PortName, ConfigError> {
        PortName::new(name).map_err(|invalid| self.refuse(field, invalid.problem))
    }

    fn number(
        &mut self,
        field: &'static str,
        value: Option<Spanned<i64>>,
        default: u32,
        range: RangeInclusive<u32>,
    ) -> Result<u32, ConfigError> {
        let Some(value) = self.take(field, value) else { return Ok(default) };
        u32::try_from(value).ok().filter(|value| range.contains(value)).ok_or_else(|| {
            self.refuse(field, format!("{value} is out of range: {} to {}", range.start(), range.end()))
        })
    }

    fn path(
        &mut self,
        field: &'static str,
        value: Option<Spanned<PathBuf>>,
        default: PathBuf,
    ) -> Result<PathBuf, ConfigError> {
        let Some(path) = self.take(field, value) else { return Ok(default) };
        if path.is_absolute() && path.file_name().is_some() {
            Ok(path)
        } else {
            Err(self.refuse(field, format!("\"{}\" is not the absolute path of a file", path.display())))
        }
    }

    fn refuse(&self, field: &'static str, problem: String) -> ConfigError {
        let line = self.lines.get(field).copied();
        ConfigError { file: self.file.to_owned(), line, field: Some(field), problem }
    }
}

/// Whether a part of `log` is a level, or says for what one counts. Any other word would be taken for something whose every line is
/// logged, and all others' none.
fn is_directive(word: &str) -> bool {
    word.contains(['=', '[']) || word.trim().parse::<tracing_subscriber::filter::LevelFilter>().is_ok()
}

/// The line, from 1, that holds byte `offset`.
fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// TOML's own message on one line, with the key of the line it complains of, which it leaves out for a wrong type.
fn with_key(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().split('\n').collect::<Vec<_>>().join(", ");
    let line =
        error.span().and_then(|span| text.lines().nth(line_of(text, span.start) - 1)).unwrap_or_default();
    match line.split_once('=') {
        Some((key, _)) if !message.contains(key.trim()) => format!("{}: {message}", key.trim()),
        _ => message,
    }
}

/// Names of the interfaces of this network namespace.
fn interfaces() -> Vec<String> {
    let mut names: Vec<_> = nix::net::if_::if_nameindex()
        .map(|list| list.iter().map(|one| one.name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Loaded, String> {
        Loaded::parse(Path::new("v.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(parse("").map(|loaded| loaded.config), Ok(Config::default()));
    }

    #[test]
    fn every_field_is_read() {
        let text = r#"
            uplink = ["eth0", "eth1"]
            host_port = "pods0"
            cores = [1, 3]
            poll = "busy"
            frames = 4096
            flows = 2048
            fragments = 64
            icmp_errors_per_second = 10
            icmp_errors_per_source = 3
            flow_log_per_second = 0
            tcp_windows = false
            api_socket = "/tmp/engine.sock"
            state_file = "/tmp/engine.state"
            metrics = "[::1]:9464"
            log = "info,vswitch=debug"
        "#;
        let name = |name: &str| PortName::new(name).unwrap();
        let config = parse(text).unwrap().config;
        assert_eq!(
            config,
            Config {
                uplinks: vec![name("eth0"), name("eth1")],
                host_port: name("pods0"),
                cores: vec![1, 3],
                poll: Poll::Busy,
                frames: 4096,
                flows: 2048,
                fragments: 64,
                icmp_errors_per_second: 10,
                icmp_errors_per_source: 3,
                flow_log_per_second: 0,
                tcp_windows: false,
                api_socket: "/tmp/engine.sock".into(),
                state_file: "/tmp/engine.state".into(),
                metrics: Some("[::1]:9464".parse().unwrap()),
                log: "info,vswitch=debug".into(),
            }
        );
        assert_eq!(parse(&config.to_toml()).unwrap().config, config);
        assert_eq!(parse(&Config::default().to_toml()).unwrap().config, Config::default());
        assert_eq!(parse("uplink = \"eth0\"").unwrap().config.uplinks, [name("eth0")]);
    }

    #[test]
    fn a_refusal_names_line_field_and_what_would_be_right() {
        for (text, said) in [
            ("flow = 1", "v.toml:1: unknown field `flow`, expected one of `uplink`, `host_port`"),
            ("\nflows = 12", "v.toml:2: flows: 12 is out of range: 1024 to 33554432"),
            ("frames = -1", "v.toml:1: frames: -1 is out of range: 1024 to 4194304"),
            ("flows = \"many\"", "v.toml:1: flows: invalid type: string \"many\", expected i64"),
            ("poll = \"lazy\"", "v.toml:1: poll: unknown variant `lazy`, expected `busy` or `adaptive`"),
            ("\n\ncores = [0, 1, 0]", "v.toml:3: cores: core 0 is named twice"),
            (
                "cores = [0, 1]\nframes = 2000",
                "v.toml:2: frames: 2000 are too few for 2 workers, which need 2048 at least",
            ),
            ("uplink = \"a/b\"", "v.toml:1: uplink: \"a/b\" is not an interface name: 1 to 15 bytes"),
            ("uplink = 3", "v.toml:1: uplink: an interface name such as \"eth0\", or a list of them"),
            ("uplink = [\"a\", \"a\"]", "v.toml:1: uplink: a is named twice"),
            ("uplink = \"a\"\nhost_port = \"a\"", "v.toml:2: host_port: a is an uplink"),
            (
                "api_socket = \"engine.sock\"",
                "v.toml:1: api_socket: \"engine.sock\" is not the absolute path",
            ),
            (
                "api_socket = \"/run/engine\"\nstate_file = \"/run/engine\"",
                "v.toml:2: state_file: is the api_socket",
            ),
            (
                "metrics = \"9464\"",
                "v.toml:1: metrics: \"9464\" is not an address and a port; \"127.0.0.1:9464\"",
            ),
            ("log = \"loud=very\"", "v.toml:1: log: \"loud=very\": "),
            ("log = \"verbose\"", "v.toml:1: log: \"verbose\" is no level (error, warn, "),
            ("log = \"info,vswitch\"", "v.toml:1: log: \"vswitch\" is no level (error, warn, "),
            ("frames = 1\nframes = 2", "v.toml:2: frames: duplicate key"),
            ("frames = ", "v.toml:1: frames: "),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.starts_with(said), "{text:?} gave\n  {error}\nnot\n  {said}");
        }
        let socket = |length: usize| parse(&format!("api_socket = \"/{}\"", "x".repeat(length - 1)));
        assert!(socket(107).is_ok());
        assert!(socket(108).unwrap_err().starts_with("v.toml:1: api_socket: 108 bytes are too many"));
    }

    #[test]
    fn what_this_machine_lacks_is_refused_by_line() {
        let error = parse("\nuplink = \"vswitch-nope\"").unwrap().check_machine().unwrap_err().to_string();
        assert!(
            error.starts_with("v.toml:2: uplink: no interface vswitch-nope here; there are: "),
            "{error}"
        );
        let error = parse("cores = [100000]").unwrap().check_machine().unwrap_err().to_string();
        assert!(
            error.starts_with("v.toml:1: cores: no core 100000 for this process; there are: ["),
            "{error}"
        );
        assert_eq!(parse("uplink = \"lo\"").unwrap().check_machine(), Ok(()));
        assert_eq!(parse("uplink = \"vswitch-nope\"").unwrap().check_cores(), Ok(()), "what a start asks");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Loaded::read(Path::new("/nowhere/v.toml")).unwrap_err().to_string();
        assert!(error.starts_with("/nowhere/v.toml: cannot be read: "), "{error}");
    }
}
