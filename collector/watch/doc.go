// Package watch keeps one watch list and spreads it to every broker.
//
// The list comes from a file, from a person with any MQTT client, or from
// another collector. Brokers know nothing of each other, collectors may hold
// different files, clocks may be wrong and anybody may publish, so this is the
// whole protocol:
//
//   - A list's rev orders it. Of two lists with one rev the greater content
//     hash is the later, so that any two lists have an order.
//   - A collector makes a new rev only when its content changes: its file was
//     edited, or a person's list arrived live. The rev is the greater of its
//     clock in ms and the highest rev seen anywhere plus one. A file that
//     changed waits for its rev until the brokers have shown what they hold
//     (at most [settleTime] after the first was subscribed), because the change
//     must rank above all of it.
//   - It publishes, retained, where a broker shows an earlier list or none. A
//     broker shows none when nothing retained came within [quietTime] of its
//     SUBACK. MQTT has no better sign; a retained list that comes later still
//     is judged like any other.
//   - A collector without a file follows: it takes every later list, with its
//     exact bytes, and spreads it.
//   - A collector with a file takes the rev of a later list with its own
//     content. A later list with other content silences it until its own file
//     changes or the two agree again; it warns each minute, naming who made
//     the other. The last change wins.
//   - A list without rev is a person's. Live, a collector without a file makes
//     it the swarm's after [wishTime], unless somebody's file was put back
//     meanwhile; a collector with a file puts its own list back. Stored, it is
//     adopted only by a collector that holds nothing, after [adoptTime] in
//     which no broker showed a rev.
//   - A rev more than [horizon] ahead of the clock (or of the build, where the
//     clock is not set) is a forgery or a broken clock: such a list counts as
//     none. So there is always room above every rev that counts, and the
//     next change wins. Without this rule one forged rev, the greatest that
//     JSON can carry, would rank above every list to come.
//   - A list of a newer version is left alone until this collector's content changes.
//   - Whoever disagrees, no storm: the same list is published on one broker
//     again only after a pause that doubles from [retryMin] to [retryMax]. Two
//     collectors that corrected each other at once were measured at 513
//     publishes in 5 s.
package watch
