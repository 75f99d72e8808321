//! `CNI_ARGS`: key=value pairs between semicolons, by which Kubernetes says whose pod it is.

use rscni_plugin::error::Error as CniError;

/// What `CNI_ARGS` told us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CniArgs {
    /// `K8S_POD_NAMESPACE`; empty when there is no Kubernetes around.
    pub pod_namespace: String,
    /// `K8S_POD_NAME`.
    pub pod_name: String,
    /// `K8S_POD_UID`.
    pub pod_uid: String,
}

impl CniArgs {
    /// Reads the variable's value.
    ///
    /// A key that is not ours is an error unless `IgnoreUnknown` is among the pairs and true, the rule of the CNI
    /// libraries. So is a pair without `=`, or a key given twice.
    pub fn parse(text: &str) -> Result<Self, CniError> {
        let mut args = Self::default();
        let mut ignore_unknown = false;
        let mut unknown = None;
        let mut seen: Vec<&str> = Vec::new();
        for pair in text.split(';').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| wrong(format!("{pair:?} is not a pair such as KEY=VALUE")))?;
            if seen.contains(&key) {
                return Err(wrong(format!("{key} is given twice")));
            }
            seen.push(key);
            match key {
                "IgnoreUnknown" => ignore_unknown = truth(value)?,
                "K8S_POD_NAMESPACE" => value.clone_into(&mut args.pod_namespace),
                "K8S_POD_NAME" => value.clone_into(&mut args.pod_name),
                "K8S_POD_UID" => value.clone_into(&mut args.pod_uid),
                // The container's id, which CNI_CONTAINERID says as well.
                "K8S_POD_INFRA_CONTAINER_ID" => {}
                _ => unknown = unknown.or(Some(key)),
            }
        }
        match unknown {
            Some(key) if !ignore_unknown => {
                Err(wrong(format!("{key} is unknown here; leave it out or add IgnoreUnknown=1")))
            }
            _ => Ok(args),
        }
    }
}

fn truth(value: &str) -> Result<bool, CniError> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(wrong(format!("IgnoreUnknown={value}: 1, true, 0 or false"))),
    }
}

fn wrong(problem: impl std::fmt::Display) -> CniError {
    CniError::InvalidEnvValue(format!("CNI_ARGS: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_names_the_pod() {
        let text = "IgnoreUnknown=1;K8S_POD_NAMESPACE=voip;K8S_POD_NAME=relay-0;K8S_POD_INFRA_CONTAINER_ID=ab;K8S_POD_UID=u-1";
        let args = CniArgs::parse(text).unwrap();
        assert_eq!((&*args.pod_namespace, &*args.pod_name, &*args.pod_uid), ("voip", "relay-0", "u-1"));
        assert_eq!(CniArgs::parse("").unwrap(), CniArgs::default());
        assert_eq!(CniArgs::parse(";;").unwrap(), CniArgs::default());
        assert_eq!(CniArgs::parse("K8S_POD_NAME=a=b").unwrap().pod_name, "a=b");
    }

    #[test]
    fn unknown_keys_need_leave() {
        for (text, right) in [
            ("IP=10.0.0.1", false),
            ("IP=10.0.0.1;IgnoreUnknown=1", true),
            ("IgnoreUnknown=true;IP=10.0.0.1", true),
            ("IgnoreUnknown=0;IP=10.0.0.1", false),
            ("IgnoreUnknown=perhaps", false),
            ("K8S_POD_NAME", false),
            ("K8S_POD_NAME=a;K8S_POD_NAME=b", false),
        ] {
            let read = CniArgs::parse(text);
            assert_eq!(read.is_ok(), right, "{text}");
            if let Err(error) = read {
                assert_eq!(u32::from(&error), 4, "{text}");
                assert!(error.to_string().contains("CNI_ARGS"), "{error}");
            }
        }
    }
}
