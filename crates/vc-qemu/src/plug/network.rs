//! Network interfaces: virtio-net on taps that come as descriptors, or on a process behind a socket.
//! Source: QEMU's QMP reference, `netdev_add`.

use std::sync::Arc;

use serde_json::{Value, json};
use vc_device::{NetworkBackend, NetworkSpec, TapQueue};

use crate::devices::Taken;

use super::place::{given, put};
use super::recipe::{Command, Recipe};
use super::vhost_user::connect;

/// How to plug an interface.
pub(crate) fn recipe(spec: &NetworkSpec, taken: Taken) -> Recipe {
    let netdev = format!("net-{}", spec.id());
    let delete = Command::new("netdev_del", json!({"id": netdev}));
    let (mut recipe, add, pairs) = match spec.backend() {
        NetworkBackend::Tap(queues) => {
            let mut recipe = Recipe::default();
            let add = tap(&mut recipe, spec, queues);
            (recipe, add, queues.len())
        }
        NetworkBackend::VhostUser(socket) => {
            let (recipe, chardev) = connect(spec.id(), socket);
            (recipe, json!({"type": "vhost-user", "chardev": chardev}), 1)
        }
    };
    let add = with_id(add, &netdev);
    recipe.make("connect the interface", Command::new("netdev_add", add), delete);
    let device = json!({
        "driver": "virtio-net-pci",
        "id": spec.id().as_str(),
        "netdev": netdev,
        "mac": spec.mac().to_string(),
        "host_mtu": spec.mtu(),
        "mq": (pairs > 1).then_some(true),
        // Two for each pair, one for control and one for changes (virtio 1.2, section 5.1.2).
        "vectors": (pairs > 1).then_some(2 * pairs + 2),
        // There is nothing to boot from.
        "romfile": "",
    });
    recipe.device("add the interface", put(taken, given(device)));
    recipe
}

fn tap(recipe: &mut Recipe, spec: &NetworkSpec, queues: &[TapQueue]) -> Value {
    let mut pass = |kind: &str, number: usize, file: &Arc<std::fs::File>| {
        let name = format!("{kind}-{}-{number}", spec.id());
        recipe.pass_descriptor(&name, file);
        name
    };
    let taps: Vec<_> = queues.iter().enumerate().map(|(n, queue)| pass("tap", n, &queue.tap)).collect();
    let vhosts: Vec<_> = queues
        .iter()
        .enumerate()
        .filter_map(|(n, queue)| Some(pass("vhost", n, queue.vhost.as_ref()?)))
        .collect();
    let with_vhost = !vhosts.is_empty();
    given(json!({
        "type": "tap",
        "fds": taps.join(":"),
        "vhost": with_vhost.then_some(true),
        "vhostfds": with_vhost.then(|| vhosts.join(":")),
    }))
}

fn with_id(mut arguments: Value, id: &str) -> Value {
    if let Value::Object(map) = &mut arguments {
        map.insert("id".into(), id.into());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plug::recipe::text;
    use crate::plug::testing::{PCI, assert_golden, file, place};
    use vc_types::HostPath;

    fn lines(mtu: Option<u16>, backend: NetworkBackend) -> String {
        let mac = "52:54:00:12:34:56".parse().unwrap();
        let spec = NetworkSpec::new("eth0".parse().unwrap(), mac, mtu, backend).unwrap();
        text(&recipe(&spec, place(PCI, 8, 0)))
    }

    #[test]
    fn on_a_tap_on_two_with_vhost_and_on_a_socket() {
        let one = lines(None, NetworkBackend::Tap(vec![TapQueue { tap: file(), vhost: None }]));
        assert_golden("network-tap.txt", &one);
        let queue = || TapQueue { tap: file(), vhost: Some(file()) };
        let two = lines(Some(1400), NetworkBackend::Tap(vec![queue(), queue()]));
        assert_golden("network-queues.txt", &two);
        let socket = HostPath::new("/run/net.sock").unwrap();
        let user = lines(None, NetworkBackend::VhostUser(socket));
        assert_golden("network-vhost-user.txt", &user);
    }
}
