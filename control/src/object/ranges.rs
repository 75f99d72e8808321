//! Ranges of addresses, as people write them.
//!
//! Kubernetes and network-policy-api take bits beyond a length and mean the range without them; Calico does so in network
//! sets, and refuses them in rules and pools. Calico takes an address for the range of it alone; the others do not.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::Object;

/// A range within ::ffff:0:0/96, IPv4 addresses as IPv6 writes them, means nobody: no packet has one.
pub(super) fn check_range(range: IpNet) -> Result<(), String> {
    let range = range.trunc();
    if let IpNet::V6(v6) = range
        && let (Some(v4), Some(length)) = (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96))
    {
        let problem = "is an IPv4 range as IPv6 writes it, and no packet has such addresses";
        return Err(format!("{range} {problem}; {v4}/{length} would be right"));
    }
    Ok(())
}

/// Nor must there be bits beyond the length, where upstream refuses them: 10.0.0.1/8 is more likely a mistake than a way
/// to write 10.0.0.0/8.
pub(super) fn check_cidr(cidr: IpNet) -> Result<(), String> {
    check_range(cidr)?;
    if cidr.trunc() == cidr {
        Ok(())
    } else {
        Err(format!("{cidr} has bits set beyond its length; {} would be right", cidr.trunc()))
    }
}

/// A range, or an address for the range of it alone.
struct RangeOrAddress(IpNet);

impl<'de> Deserialize<'de> for RangeOrAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let range = text.parse().or_else(|wrong| text.parse().map(|it: IpAddr| it.into()).map_err(|_| wrong));
        range.map(Self).map_err(serde::de::Error::custom)
    }
}

/// A list, for `deserialize_with`; null is none.
pub(super) fn ranges_or_addresses<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<IpNet>, D::Error> {
    let list: Option<Vec<RangeOrAddress>> = Option::deserialize(deserializer)?;
    Ok(list.unwrap_or_default().into_iter().map(|RangeOrAddress(range)| range).collect())
}

/// Where an object has ranges with bits beyond their length, and what they are taken for:
/// `spec.ingress[0].from[0].ipBlock.cidr: 10.0.0.1/8 is taken as 10.0.0.0/8`.
pub(crate) fn masked(object: &Object) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(spec) = object.to_value().get("spec") {
        look(spec, "spec", "", &mut found);
    }
    found
}

/// `field`: the name of the field that `value` is in.
fn look(value: &Value, path: &str, field: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                look(value, &format!("{path}.{field}"), field, found);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                look(value, &format!("{path}[{index}]"), field, found);
            }
        }
        Value::String(text) if ["cidr", "except", "networks", "nets"].contains(&field) => {
            if let Ok(range) = text.parse::<IpNet>()
                && range.trunc() != range
            {
                found.push(format!("{path}: {range} is taken as {}", range.trunc()));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::manifest::parse;

    #[test]
    fn what_is_masked_is_told_with_its_place() {
        let policy = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a, namespace: x}, spec: {podSelector: \
                      {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.1/8, except: [10.1.0.0/16, 10.2.3.4/16]}}]}]}}";
        let [document] = parse("f", "default", policy).unwrap().try_into().unwrap();
        assert_eq!(
            masked(&document.object),
            [
                "spec.ingress[0].from[0].ipBlock.cidr: 10.0.0.1/8 is taken as 10.0.0.0/8",
                "spec.ingress[0].from[0].ipBlock.except[1]: 10.2.3.4/16 is taken as 10.2.0.0/16"
            ]
        );
        let pod = "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: x}}";
        let [document] = parse("f", "default", pod).unwrap().try_into().unwrap();
        assert_eq!(masked(&document.object), Vec::<String>::new());
    }

    #[test]
    fn ranges_of_ipv4_as_ipv6_writes_them_are_refused_with_advice_that_can_be_taken() {
        let told = check_range("::ffff:10.1.2.3/104".parse().unwrap()).unwrap_err();
        assert!(told.ends_with("; 10.0.0.0/8 would be right"), "{told}");
        assert_eq!(check_range("::/90".parse().unwrap()), Ok(()));
        assert_eq!(check_range("10.1.2.3/8".parse().unwrap()), Ok(()));
    }
}
