//! All metadata, by path.
//!
//! Owns the names and values of `docs/cloud.md`. The tree is built once from the description of the
//! instance; a request is a lookup of its path.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use bytes::Bytes;
use serde_json::json;

use super::instance::{Cloud, CloudCard};
use super::user_data;

/// The versions of the metadata that cloud-init and similar programs ask for. All have the same
/// content.
pub(super) const VERSIONS: [&str; 5] =
    ["latest", "2009-04-04", "2016-09-02", "2018-09-24", "2021-03-23"];

/// A region and a zone in it. The names have the usual form; there is no such place.
const REGION: &str = "local-1";
const ZONE: &str = "local-1a";

/// The instance type, which clouds use for sizes.
const INSTANCE_TYPE: &str = "metaservice";

/// The network of all cards.
const NETWORK_ID: &str = "vpc-local";

#[derive(Debug, Default)]
pub(super) struct Tree(BTreeMap<String, Bytes>);

impl Tree {
    pub(super) fn of(cloud: &Cloud, script: Option<&str>) -> Self {
        let user_data = user_data::merged(cloud.user_data.as_ref(), script);
        let mut tree = Self::default();
        let mut instance = leaves(cloud);
        instance.push(("dynamic/instance-identity/document".into(), identity(cloud).into()));
        if let Some(user_data) = &user_data {
            instance.push(("user-data".into(), user_data.clone()));
        }
        for version in VERSIONS {
            tree.grow(version, &instance);
        }
        tree.list_keys(cloud);
        tree.seed(cloud, user_data);
        tree
    }

    /// The content at a path. A directory's path may end with a slash or not.
    pub(super) fn find(&self, path: &str) -> Option<Bytes> {
        let directory = || {
            self.0
                .get(path.strip_suffix('/').unwrap_or(path))
                .filter(|_| self.0.contains_key(&format!("{}/", path.trim_end_matches('/'))))
        };
        self.0.get(path).or_else(directory).cloned()
    }

    /// Adds leaves below a version, and the lists of the directories above them.
    fn grow(&mut self, version: &str, leaves: &[(String, Bytes)]) {
        let mut directories: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (path, value) in leaves {
            let mut above = format!("/{version}/");
            let mut names = path.split('/').peekable();
            while let Some(name) = names.next() {
                let list = directories.entry(above.clone()).or_default();
                if names.peek().is_some() {
                    list.insert(format!("{name}/"));
                    let _ = write!(above, "{name}/");
                } else {
                    list.insert(name.to_owned());
                }
            }
            self.0.insert(format!("/{version}/{path}"), value.clone());
        }
        for (directory, names) in directories {
            self.directory(&directory, names.into_iter().collect::<Vec<_>>().join("\n"));
        }
    }

    fn directory(&mut self, path: &str, list: String) {
        let list = Bytes::from(list);
        self.0.insert(path.trim_end_matches('/').to_owned(), list.clone());
        self.0.insert(path.to_owned(), list);
    }

    /// Adds the list of public keys, by number and name.
    fn list_keys(&mut self, cloud: &Cloud) {
        if cloud.keys.is_empty() {
            return;
        }
        let names = (0..cloud.keys.len()).map(|n| format!("{n}=key-{n}")).collect::<Vec<_>>();
        for version in VERSIONS {
            self.directory(&format!("/{version}/meta-data/public-keys/"), names.join("\n"));
        }
    }

    /// Adds the seed for the data source `NoCloud`, for machines whose UUID cannot be set.
    fn seed(&mut self, cloud: &Cloud, user_data: Option<Bytes>) {
        let keys: Vec<&str> = cloud.keys.iter().map(|key| key.0.as_str()).collect();
        // JSON is valid YAML.
        let meta_data = json!({
            "instance-id": cloud.instance_id(),
            "local-hostname": cloud.hostname,
            "public-keys": keys,
        });
        let mut put = |name: &str, value: Bytes| self.0.insert(format!("/nocloud/{name}"), value);
        put("meta-data", meta_data.to_string().into());
        put("user-data", user_data.unwrap_or_default());
        put("vendor-data", Bytes::new());
        if !cloud.cards.is_empty() {
            put("network-config", network_config(&cloud.cards).into());
        }
    }
}

fn leaves(cloud: &Cloud) -> Vec<(String, Bytes)> {
    let mut leaves: Vec<(String, Bytes)> = Vec::new();
    let mut add =
        |path: String, value: String| leaves.push((format!("meta-data/{path}"), value.into()));
    add("ami-launch-index".into(), "0".into());
    add("instance-id".into(), cloud.instance_id().to_owned());
    add("instance-type".into(), INSTANCE_TYPE.into());
    add("hostname".into(), cloud.hostname.clone());
    add("local-hostname".into(), cloud.hostname.clone());
    add("placement/availability-zone".into(), ZONE.into());
    add("placement/region".into(), REGION.into());
    for (n, key) in cloud.keys.iter().enumerate() {
        add(format!("public-keys/{n}/openssh-key"), key.0.clone());
    }
    if let Some(first) = cloud.cards.first() {
        add("mac".into(), mac(first));
        if let Some(address) = first.address {
            add("local-ipv4".into(), address.to_string());
        }
    }
    for (n, card) in cloud.cards.iter().enumerate() {
        let directory = format!("network/interfaces/macs/{}", mac(card));
        add(format!("{directory}/device-number"), n.to_string());
        add(format!("{directory}/mac"), mac(card));
        // Without a VPC id, cloud-init takes the instance for one of the oldest kind. It then sends
        // DHCP requests when its network is up already, which fails.
        add(format!("{directory}/vpc-id"), NETWORK_ID.into());
        if let Some(address) = card.address {
            add(format!("{directory}/local-ipv4s"), address.to_string());
        }
    }
    leaves
}

fn mac(card: &CloudCard) -> String {
    card.mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn identity(cloud: &Cloud) -> String {
    let address = cloud.cards.first().and_then(|card| card.address);
    let mut document = json!({
        "architecture": std::env::consts::ARCH,
        "availabilityZone": ZONE,
        "instanceId": cloud.instance_id(),
        "instanceType": INSTANCE_TYPE,
        "region": REGION,
        "version": "2017-09-30",
    });
    if let Some(address) = address {
        document["privateIp"] = address.to_string().into();
    }
    document.to_string()
}

/// Network configuration version 2: DHCP on each card. The first card has the smallest metric.
fn network_config(cards: &[CloudCard]) -> String {
    let ethernets: serde_json::Map<_, _> = cards
        .iter()
        .enumerate()
        .map(|(n, card)| {
            let metric = json!({ "route-metric": (n + 1) * 100 });
            let config = json!({ "match": { "macaddress": mac(card) }, "dhcp4": true, "dhcp4-overrides": metric });
            (format!("card{n}"), config)
        })
        .collect();
    json!({ "version": 2, "ethernets": ethernets }).to_string()
}
