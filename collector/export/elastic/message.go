package elastic

import (
	"strconv"

	"swarming/collector/journal"
	"swarming/shared/wire"
)

// resultMessage says in one line what a result says.
//
//	garage-pi to example.com (192.0.2.1): 4 of 5 back, avg 12.4 ms, 20% lost (timeout)
func resultMessage(r *wire.Result) string {
	b := make([]byte, 0, 160)
	b = append(b, r.Agent...)
	b = append(b, " to "...)
	b = append(b, r.Target...)
	if r.Addr.IsValid() {
		b = r.Addr.AppendTo(append(b, " ("...))
		b = append(b, ')')
	}
	b = append(b, ": "...)
	if r.Sent > 0 {
		b = strconv.AppendInt(b, int64(r.Recv), 10)
		b = strconv.AppendInt(append(b, " of "...), int64(r.Sent), 10)
		b = append(b, " back"...)
	} else if r.Avg == nil {
		b = append(b, "nothing sent"...)
	} else {
		b = append(b, "answered"...) // the original of 2014 did not say how many were sent
	}
	if r.Avg != nil {
		b = appendMillis(append(b, ", avg "...), *r.Avg)
		b = append(b, " ms"...)
	}
	if r.Loss != nil && *r.Loss > 0 {
		b = appendMillis(append(b, ", "...), *r.Loss)
		b = append(b, "% lost"...)
	}
	if r.Cause != "" {
		b = append(b, " ("...)
		b = append(b, r.Cause...)
		b = append(b, ')')
	}
	return string(b)
}

// eventMessage says in one line what an event says.
func eventMessage(e *journal.Event) string {
	says := e.Kind + " (" + e.Reason + ")"
	switch [2]string{e.Kind, e.Reason} {
	case [2]string{"rip", string(wire.RipBye)}:
		says = "said bye"
	case [2]string{"rip", string(wire.RipLost)}:
		says = "was lost"
	case [2]string{"live", "first"}:
		says = "is alive"
	case [2]string{"live", "boot"}:
		says = "started anew"
	case [2]string{"live", "back"}:
		says = "is back after a silence"
	}
	return string(e.Agent) + " " + says
}
