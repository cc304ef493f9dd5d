//! What the engine says of a container, as plain facts.

use backup_core::{ContainerFacts, ContainerMount, Secret};
use bollard::models::ContainerInspectResponse;
use std::net::{IpAddr, SocketAddr};

pub(crate) fn facts(found: ContainerInspectResponse) -> ContainerFacts {
    let config = found.config.unwrap_or_default();
    let network = found.network_settings.unwrap_or_default();
    let environment = config.env.unwrap_or_default();
    let published = network.ports.unwrap_or_default().into_iter().filter_map(|(key, bindings)| {
        let inside = key.strip_suffix("/tcp").unwrap_or(&key).parse().ok()?;
        // IPv4 first: an engine publishes both, and the first address that fits is used.
        let mut there: Vec<SocketAddr> = bindings?
            .into_iter()
            .filter_map(|b| Some(SocketAddr::new(address(b.host_ip.as_deref())?, b.host_port?.parse().ok()?)))
            .collect();
        there.sort_by_key(SocketAddr::is_ipv6);
        Some((inside, *there.first()?))
    });
    let addresses =
        network.networks.unwrap_or_default().into_values().filter_map(|n| n.ip_address?.parse().ok());
    let mounts = found.mounts.unwrap_or_default().into_iter().filter_map(|m| {
        Some(ContainerMount {
            source: m.name.filter(|n| !n.is_empty()).or(m.source)?,
            destination: m.destination?,
            writable: m.rw.unwrap_or(false),
        })
    });
    ContainerFacts {
        id: found.id.unwrap_or_default(),
        name: found.name.unwrap_or_default().trim_start_matches('/').to_owned(),
        image: config.image.unwrap_or_default(),
        running: found.state.and_then(|s| s.running).unwrap_or(false),
        environment: environment
            .into_iter()
            .filter_map(|pair| pair.split_once('=').map(|(k, v)| (k.to_owned(), Secret::new(v))))
            .collect(),
        labels: config.labels.unwrap_or_default().into_iter().collect(),
        published: published.collect(),
        addresses: addresses.collect(),
        mounts: mounts.collect(),
    }
}

/// No address: all of them.
fn address(text: Option<&str>) -> Option<IpAddr> {
    match text {
        None | Some("") => Some(std::net::Ipv4Addr::UNSPECIFIED.into()),
        Some(text) => text.parse().ok(),
    }
}
