# METADATA
# title: A namespace's pods do not stand open to every other namespace
# description: "Namespaces are not isolated by themselves: a pod that any pod of another namespace may open on any port is named. Namespaces labelled weir.dev/system, those of data.nsa.system, and pods labelled weir.dev/shared are exempt."
# related_resources:
# - https://media.defense.gov/2022/Aug/29/2003066362/-1/-1/0/CTR_KUBERNETES_HARDENING_GUIDANCE_1.2_20220829.PDF
# custom:
#   severity: audit
package nsa.namespaces_apart

import data.weir.world

violation contains {"msg": msg, "from": connection.from, "to": connection.to, "port": "any"} if {
	some connection in world.connections
	connection.allow == "any"
	not connection.from.outside
	not connection.to.outside
	connection.to.kind != "Node"
	connection.from.namespace != connection.to.namespace
	not connection.from.namespace in system
	not connection.to.namespace in system
	not "weir.dev/shared" in object.keys(connection.to.labels)
	msg := sprintf("%s/%s is open to %s/%s on every port", [connection.to.namespace, connection.to.name, connection.from.namespace, connection.from.name])
}

system contains name if some name in data.nsa.system

system contains namespace.name if {
	some namespace in world.namespaces
	namespace.labels["weir.dev/system"] == "true"
}
