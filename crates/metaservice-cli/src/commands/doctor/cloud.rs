//! Whether this host is an instance in a cloud, whose metadata service can give out credentials.
//!
//! This reads the DMI tables and the routes of the host. It sends nothing.

use std::fmt;
use std::fs;
use std::net::Ipv4Addr;

/// The metadata services of clouds that have routes of their own.
const SERVICES: [Ipv4Addr; 2] =
    [Ipv4Addr::new(169, 254, 169, 254), Ipv4Addr::new(168, 63, 129, 16)];

/// Fields of the DMI tables, what they contain in a cloud, and the cloud.
const CLOUDS: [(&str, &str, &str); 14] = [
    ("sys_vendor", "Amazon EC2", "Amazon EC2"),
    // Older instances have no vendor of their own.
    ("bios_version", "amazon", "Amazon EC2"),
    ("product_name", "Google Compute Engine", "Google Compute Engine"),
    ("chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77", "Microsoft Azure"),
    ("chassis_asset_tag", "OracleCloud.com", "Oracle Cloud"),
    ("sys_vendor", "Alibaba Cloud", "Alibaba Cloud"),
    ("sys_vendor", "DigitalOcean", "DigitalOcean"),
    ("sys_vendor", "Hetzner", "Hetzner"),
    ("sys_vendor", "Scaleway", "Scaleway"),
    ("sys_vendor", "Vultr", "Vultr"),
    ("sys_vendor", "Tencent Cloud", "Tencent Cloud"),
    ("sys_vendor", "Linode", "Linode"),
    ("product_name", "OpenStack", "OpenStack"),
    ("chassis_asset_tag", "OpenStack", "OpenStack"),
];

/// What makes this host look like an instance in a cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cloud {
    /// The DMI tables are of this cloud.
    Named(&'static str),
    /// There is a route to a metadata service.
    Route(Ipv4Addr),
}

impl Cloud {
    /// Reads the files of this host.
    pub(super) fn of_host() -> Option<Self> {
        let dmi = |field: &str| fs::read_to_string(format!("/sys/class/dmi/id/{field}")).ok();
        let named = of_dmi(dmi).map(Self::Named);
        named.or_else(|| {
            fs::read_to_string("/proc/net/route").ok().and_then(|text| of_routes(&text))
        })
    }
}

impl fmt::Display for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(cloud) => write!(f, "this host is an instance of {cloud}"),
            Self::Route(address) => write!(f, "this host has a route to {address}"),
        }
    }
}

fn of_dmi(field: impl Fn(&str) -> Option<String>) -> Option<&'static str> {
    let found = CLOUDS
        .iter()
        .find(|(name, value, _)| field(name).is_some_and(|text| text.trim().contains(value)));
    found.map(|(_, _, cloud)| *cloud)
}

/// Finds the route of a metadata service in the table of the kernel: a route of one address.
fn of_routes(table: &str) -> Option<Cloud> {
    let number = |text: &str| u32::from_str_radix(text, 16).ok();
    let route = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (address, mask) = (number(fields.get(1)?)?, number(fields.get(7)?)?);
        // The kernel prints the bytes of the network as a number of this host.
        let address = Ipv4Addr::from(address.to_ne_bytes());
        (mask == u32::MAX && SERVICES.contains(&address)).then_some(Cloud::Route(address))
    };
    table.lines().skip(1).find_map(route)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cloud_is_known_by_its_tables() {
        let with = |name: &'static str, text: &'static str| {
            of_dmi(move |field| (field == name).then(|| format!("{text}\n")))
        };
        assert_eq!(with("sys_vendor", "Amazon EC2"), Some("Amazon EC2"));
        assert_eq!(with("bios_version", "4.11.amazon"), Some("Amazon EC2"));
        assert_eq!(with("product_name", "OpenStack Nova"), Some("OpenStack"));
        let azure = "7783-7084-3265-9085-8269-3286-77";
        assert_eq!(with("chassis_asset_tag", azure), Some("Microsoft Azure"));
        // The vendor of Azure is also that of laptops.
        assert_eq!(with("sys_vendor", "Microsoft Corporation"), None);
        assert_eq!(with("sys_vendor", "QEMU"), None);
        assert_eq!(of_dmi(|_| None), None);
    }

    #[test]
    fn a_route_to_a_metadata_service_is_found() {
        let head =
            "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n";
        let line = |address: [u8; 4], mask: u32| {
            let address = u32::from_ne_bytes(address);
            format!("eth0\t{address:08X}\t00000000\t0007\t0\t0\t100\t{mask:08X}\t0\t0\t0\n")
        };
        let table = |lines: &[String]| format!("{head}{}", lines.concat());
        let usual = line([0, 0, 0, 0], 0);
        let metadata = line([169, 254, 169, 254], u32::MAX);
        let found = Some(Cloud::Route(SERVICES[0]));
        assert_eq!(of_routes(&table(&[usual.clone(), metadata])), found);
        let link_local = line([169, 254, 0, 0], u32::from_ne_bytes([255, 255, 0, 0]));
        assert_eq!(of_routes(&table(&[usual, link_local])), None);
        assert_eq!(of_routes("x"), None);
        assert_eq!(of_routes(&table(&["eth0 zz\n".to_owned()])), None);
    }
}
