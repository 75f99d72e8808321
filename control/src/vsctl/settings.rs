//! `get settings`: what the agent and the engine were configured with.

use std::path::Path;

use serde_json::{Map, Value, json};
use vswitch_model::api::agent::GetAgentStatusRequest;
use vswitch_model::api::engine::GetStatusRequest;

use super::cli::Get;
use super::output::{Report, indent, table};
use super::{Failure, agent, engine_client};

/// Names of settings with their values, as the file has them.
type Told = Result<Vec<(String, String)>, Failure>;

/// Whether it is what a person calls them.
pub(super) fn is_noun(kind: &str) -> bool {
    ["settings", "setting", "config", "configuration"].contains(&kind.to_ascii_lowercase().as_str())
}

/// Why this `get` makes no sense for settings.
pub(super) fn problem(get: &Get) -> Option<&'static str> {
    if get.namespace.is_some() || get.all_namespaces {
        return Some("settings have no namespace: leave out --namespace and --all-namespaces");
    }
    if get.selector.is_some() {
        return Some("settings have no labels: --selector is for objects");
    }
    if !get.names.is_empty() {
        return Some("settings have no names to choose by");
    }
    (get.address.is_some() || get.limit.is_some()).then_some("--address and --limit are for flows and routes")
}

/// The report, and whether both answered.
pub(super) async fn settings(agent_socket: &Path, engine_socket: &Path) -> (Report, bool) {
    let (agent, engine) = tokio::join!(of_agent(agent_socket), of_engine(engine_socket));
    let is_whole = agent.is_ok() && engine.is_ok();
    (report(&agent, &engine), is_whole)
}

async fn of_agent(socket: &Path) -> Told {
    let status = agent(socket).await?.get_status(GetAgentStatusRequest {}).await?.into_inner();
    Ok(status.settings.into_iter().map(|setting| (setting.name, setting.value)).collect())
}

async fn of_engine(socket: &Path) -> Told {
    let status = engine_client(socket).await?.get_status(GetStatusRequest {}).await?.into_inner();
    Ok(status.settings.into_iter().map(|setting| (setting.name, setting.value)).collect())
}

fn report(agent: &Told, engine: &Told) -> Report {
    let value = |told: &Told| match told {
        Ok(settings) => {
            let pairs = settings.iter().map(|(name, value)| (name.clone(), Value::from(value.clone())));
            Value::Object(pairs.collect::<Map<_, _>>())
        }
        Err(failure) => json!({"error": failure.to_string()}),
    };
    let text = |told: &Told| match told {
        Ok(settings) => {
            let rows = settings.iter().map(|(name, value)| [name.clone(), value.clone()]);
            table(["setting", "value"], rows)
        }
        Err(failure) => failure.to_string(),
    };
    Report {
        value: json!({"agent": value(agent), "engine": value(engine)}),
        text: format!("agent\n{}\n\nengine\n{}", indent(&text(agent), 2), indent(&text(engine), 2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_away_hides_nobody() {
        let engine = Ok(vec![("flows".to_owned(), "1024".to_owned())]);
        let report = report(&Err(Failure("vswitch-agent does not answer".into())), &engine);
        let expected = "agent\n  vswitch-agent does not answer\n\nengine\n  SETTING  VALUE\n  flows    1024";
        assert_eq!(report.text, expected);
        assert_eq!(report.value["engine"], json!({"flows": "1024"}));
        assert_eq!(report.value["agent"]["error"], "vswitch-agent does not answer");
    }
}
