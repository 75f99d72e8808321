//! The tun device of a pod, which the engine makes: looked for, and deleted, in the pod's network namespace.

use super::links::Links;
use super::netns::Netns;
use crate::error::{During, Failure};
use crate::runtime;

/// Whether the interface `name` is there and is a tun.
pub fn is_in(netns: &Netns, name: &str) -> Result<bool, Failure> {
    inside(netns, async |links| Ok(links.find(name).await?.is_some_and(|link| link.is_tun)))
}

/// Deletes the interface `name`, if it is there and is a tun.
pub fn delete(netns: &Netns, name: &str) -> Result<(), Failure> {
    inside(netns, async |links| {
        if links.find(name).await?.is_some_and(|link| link.is_tun) {
            links.delete(name).await?;
        }
        Ok(())
    })
}

fn inside<T: Send>(
    netns: &Netns,
    work: impl AsyncFnOnce(Links) -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    netns.run(|| runtime().during(|| "start")?.block_on(async { work(Links::open()?).await }))?
}
