//! `version`: of vsctl, and of the agent and engine it speaks to.

use std::path::Path;

use serde_json::{Value, json};
use vswitch_model::api::agent::GetAgentStatusRequest;
use vswitch_model::api::engine::GetStatusRequest;

use super::output::{Report, facts};
use super::{Failure, agent, engine_client};

/// The report, and whether everybody asked answered.
pub(super) async fn version(agent_socket: &Path, engine_socket: &Path, is_client: bool) -> (Report, bool) {
    if is_client {
        return (report(None), true);
    }
    let (agent, engine) = tokio::join!(of_agent(agent_socket), of_engine(engine_socket));
    let is_whole = agent.is_ok() && engine.is_ok();
    (report(Some((&agent, &engine))), is_whole)
}

async fn of_agent(socket: &Path) -> Result<String, Failure> {
    Ok(agent(socket).await?.get_status(GetAgentStatusRequest {}).await?.into_inner().version)
}

async fn of_engine(socket: &Path) -> Result<String, Failure> {
    Ok(engine_client(socket).await?.get_status(GetStatusRequest {}).await?.into_inner().version)
}

type Told = Result<String, Failure>;

fn report(daemons: Option<(&Told, &Told)>) -> Report {
    let own = env!("CARGO_PKG_VERSION");
    let Some((agent, engine)) = daemons else {
        return Report { value: json!({"vsctl": own}), text: facts(&[("vsctl", own.to_owned())]) };
    };
    let value = |told: &Told| match told {
        Ok(version) => Value::from(version.clone()),
        Err(failure) => json!({"error": failure.to_string()}),
    };
    let text = |told: &Told| told.as_ref().map_or_else(ToString::to_string, Clone::clone);
    Report {
        value: json!({"vsctl": own, "agent": value(agent), "engine": value(engine)}),
        text: facts(&[("vsctl", own.to_owned()), ("agent", text(agent)), ("engine", text(engine))]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_answer_hides_nobody() {
        let away = Err(Failure("vswitchd does not answer on /x: gone".into()));
        let report = report(Some((&Ok("0.2.0".into()), &away)));
        let lines: Vec<_> = report.text.lines().collect();
        assert_eq!(lines[1..], ["agent:   0.2.0", "engine:  vswitchd does not answer on /x: gone"]);
        assert_eq!(report.value["engine"]["error"], "vswitchd does not answer on /x: gone");
    }
}
