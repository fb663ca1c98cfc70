// Package wire is the contract between agents, collectors and anybody with a
// vanilla MQTT client: the topics, the payloads and their limits.
//
// Growth rules. A payload is read as one JSON value and bytes after it are
// ignored (a later version may sign the first value with a second one). Unknown
// fields are ignored. The version field v rises only when an old reader would
// misread a payload; a version above [Version] is refused. Names are read from
// payloads; a topic is only routing, because some brokers rewrite it.
//
// Everything a stranger may send has its limit beside its type, and whatever
// breaks one is refused with an [*Error] that names a [Reason] to count it
// under. The package imports the standard library only, keeps no state, and all
// its functions may be called concurrently.
package wire
