//! The store's part of the file: one place where objects are kept.

use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use super::read::{Read, Reader};

/// Where the embedded store is unless configured otherwise.
pub const DEFAULT_STORE: &str = "/var/lib/vswitch/store.redb";
/// What keys in etcd begin with unless configured otherwise.
pub const DEFAULT_PREFIX: &str = "/vswitch/";

/// Where objects are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreConfig {
    /// In a file of this node.
    Embedded(PathBuf),
    /// In etcd.
    Etcd {
        /// Its members: `http://host:port`.
        endpoints: Vec<String>,
        /// What all keys begin with.
        prefix: String,
    },
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WrittenStore {
    embedded: Option<Spanned<PathBuf>>,
    etcd: Option<Spanned<Vec<String>>>,
    etcd_prefix: Option<Spanned<String>>,
}

impl Reader<'_> {
    pub(super) fn store(&self, written: WrittenStore) -> Read<StoreConfig> {
        let WrittenStore { embedded, etcd, etcd_prefix } = written;
        if let (Some(_), Some(etcd)) = (&embedded, &etcd) {
            let problem = "there is store.embedded as well; one of them would be right".to_owned();
            return Err(self.refuse("store.etcd", etcd, problem));
        }
        let Some(etcd) = etcd else {
            if let Some(prefix) = etcd_prefix {
                let problem = "without store.etcd it means nothing; set that, or leave this out".to_owned();
                return Err(self.refuse("store.etcd_prefix", &prefix, problem));
            }
            let path = self.path("store.embedded", embedded)?.unwrap_or_else(|| DEFAULT_STORE.into());
            return Ok(StoreConfig::Embedded(path));
        };
        let is_endpoint = |text: &str| {
            let host_port = text.strip_prefix("http://").and_then(|rest| rest.rsplit_once(':'));
            host_port.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        };
        if etcd.as_ref().is_empty() {
            let problem = "is empty; a list such as [\"http://192.0.2.1:2379\"] would be right".to_owned();
            return Err(self.refuse("store.etcd", &etcd, problem));
        }
        if let Some(wrong) = etcd.as_ref().iter().find(|endpoint| !is_endpoint(endpoint)) {
            let problem =
                format!("\"{wrong}\": http://host:port would be right (https is not supported yet)");
            return Err(self.refuse("store.etcd", &etcd, problem));
        }
        let prefix = match etcd_prefix {
            None => DEFAULT_PREFIX.to_owned(),
            Some(prefix) if prefix.as_ref().starts_with('/') && prefix.as_ref().ends_with('/') => {
                prefix.into_inner()
            }
            Some(prefix) => {
                let problem =
                    format!("\"{}\": must begin and end with '/', as {DEFAULT_PREFIX}", prefix.as_ref());
                return Err(self.refuse("store.etcd_prefix", &prefix, problem));
            }
        };
        Ok(StoreConfig::Etcd { endpoints: etcd.into_inner(), prefix })
    }
}
