package nsa.namespaces_apart_test

import data.nsa.namespaces_apart as checked

end(namespace, name) := {"namespace": namespace, "name": name, "kind": "Deployment", "cidr": "", "outside": false, "labels": {}}

from(namespace) := {"from": end(namespace, "bot"), "to": end("shop", "db"), "allow": "any", "unknown": "none"}

world(connection) := {"connections": [connection], "namespaces": []}

test_another_namespace_may_open_every_port if {
	messages := {v.msg | some v in checked.violation} with data.weir.world as world(from("ops"))
	messages == {"shop/db is open to ops/bot on every port"}
}

test_the_same_namespace_may if count(checked.violation) == 0 with data.weir.world as world(from("shop"))

test_a_system_namespace_may if count(checked.violation) == 0 with data.weir.world as world(from("kube-system"))

test_some_ports_are_fine if {
	count(checked.violation) == 0 with data.weir.world as world(object.union(from("ops"), {"allow": "TCP/5432"}))
}
