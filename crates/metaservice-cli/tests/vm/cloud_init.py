"""The distribution's cloud-init reads a service: as EC2, as an older EC2, and as a NoCloud seed.

Prints the answers as JSON. All that it logs as a warning or worse is in there too."""
import json, logging, sys, tempfile

from cloudinit import helpers, user_data, util
from cloudinit.sources import DataSourceEc2 as source
from cloudinit.sources.helpers import ec2

URL, MACS = sys.argv[1], sys.argv[2:]


class Complaints(logging.Handler):
    said = []

    def emit(self, record):
        self.said.append(record.getMessage())


# cloud-init's own modules log below the root.
logging.getLogger().addHandler(Complaints(level=logging.WARNING))


def crawl(platform):
    """Everything as the data source has it in a machine of this platform."""
    source.identify_platform = lambda: platform
    directory = tempfile.mkdtemp()
    paths = helpers.Paths({"cloud_dir": directory, "run_dir": directory, "templates_dir": directory})
    config = {"datasource": {"Ec2": {"metadata_urls": [URL], "max_wait": 20, "timeout": 10}}}
    found = source.DataSourceEc2(config, None, paths)
    assert found._get_data(), "there is no data source"
    # The processor opens the message as in a machine, and keeps what it cannot read.
    parts = user_data.UserDataProcessor(paths).process(found.userdata_raw)
    parts = [part for part in parts.walk() if not part.is_multipart()]
    nics = {mac: "eth%d" % n for n, mac in enumerate(MACS)}
    return {
        "token": bool(found._api_token),
        "version": found._crawled_metadata["_metadata_api_version"],
        "instance": found.get_instance_id(),
        "hostname": found.get_hostname().hostname,
        "keys": found.get_public_ssh_keys(),
        # One of the oldest kind would ask for its address twice.
        "classic": found.is_classic_instance(),
        "zone": found.availability_zone,
        "region": found.region,
        "parts": [
            [part.get_content_type(), util.fully_decoded_payload(part)] for part in parts
        ],
        "network": source.convert_ec2_metadata_network_config(
            found.metadata["network"], macs_to_nics=nics, fallback_nic="eth0"
        ),
    }


print(json.dumps({
    "aws": crawl(source.CloudNames.AWS),
    "older": crawl(source.CloudNames.UNKNOWN),
    # As its helpers are called by other data sources of the kind.
    "helpers": {
        version: [
            ec2.get_instance_metadata(version, URL)["instance-id"],
            len(ec2.get_instance_userdata(version, URL)),
        ]
        for version in ["latest", "2009-04-04"]
    },
    "seed": {
        "meta-data": util.read_seeded(URL + "/nocloud/", timeout=10, retries=0)[0],
    },
    "complaints": Complaints.said,
}))
