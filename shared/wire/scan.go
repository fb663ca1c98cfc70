package wire

// scan reads a result in exactly the form that [Result.Append] writes, and
// reports whether b begins with one. It is Append in reverse, line by line, four
// times as fast as encoding/json; whatever is unusual (other order, white space,
// escapes, exponents, fields it does not know) it leaves to that. What it does
// accept it reads as encoding/json would, which a fuzz test holds.
func (r *Result) scan(b []byte) bool {
	s := scanner{rest: b}
	s.literal(`{"v":`)
	r.V = s.int()
	s.literal(`,"agent":`)
	r.Agent = AgentName(s.text())
	s.literal(`,"boot":`)
	r.Boot = Boot(s.text())
	s.literal(`,"seq":`)
	r.Seq = s.digits(16)
	s.literal(`,"at":`)
	s.check(r.At.UnmarshalText(s.quoted()))
	s.literal(`,"target":`)
	r.Target = TargetID(s.text())
	s.literal(`,"probe":`)
	r.Probe = s.word()
	if s.skip(`,"addr":`) {
		s.check(r.Addr.UnmarshalText(s.quoted()))
	}
	if s.skip(`,"family":`) {
		r.Family = s.int()
	}
	s.literal(`,"sent":`)
	r.Sent = s.int()
	s.literal(`,"recv":`)
	r.Recv = s.int()
	if s.skip(`,"late":`) {
		r.Late = s.int()
	}
	stats := new([5]float64) // one allocation instead of five
	for i, f := range [...]struct {
		name string
		to   **float64
	}{{`,"loss":`, &r.Loss}, {`,"min":`, &r.Min}, {`,"avg":`, &r.Avg}, {`,"max":`, &r.Max}, {`,"stddev":`, &r.Stddev}} {
		if s.skip(f.name) {
			stats[i], *f.to = s.float(), &stats[i]
		}
	}
	if s.skip(`,"rtts":[`) {
		r.RTTs = s.rtts(r.Sent)
	}
	if s.skip(`,"cause":`) {
		r.Cause = Cause(s.word())
	}
	if s.skip(`,"from":`) {
		s.check(r.From.UnmarshalText(s.quoted()))
	}
	if s.skip(`,"stamp":`) {
		r.Stamp = Stamp(s.word())
	}
	s.literal(`}`)
	return !s.failed
}

// A scanner reads the tokens of a compact JSON object one after another. After
// the first that is not as it should be it has failed, and reads nothing more.
type scanner struct {
	rest   []byte
	failed bool
}

func (s *scanner) fail() { s.failed, s.rest = true, nil }

func (s *scanner) check(err error) {
	if err != nil {
		s.fail()
	}
}

// skip passes over lit if it comes next.
func (s *scanner) skip(lit string) bool {
	if len(s.rest) < len(lit) || string(s.rest[:len(lit)]) != lit {
		return false
	}
	s.rest = s.rest[len(lit):]
	return true
}

func (s *scanner) literal(lit string) {
	if !s.skip(lit) {
		s.fail()
	}
}

// quoted reads a string of ASCII without escapes.
func (s *scanner) quoted() []byte {
	s.literal(`"`)
	for i, c := range s.rest {
		if c == '"' {
			q := s.rest[:i]
			s.rest = s.rest[i+1:]
			return q
		}
		if c < ' ' || c > '~' || c == '\\' {
			break
		}
	}
	s.fail()
	return nil
}

func (s *scanner) text() string { return string(s.quoted()) }

// word reads a string that is mostly one of a few, which then need no copy.
func (s *scanner) word() string {
	switch q := s.quoted(); string(q) {
	case DefaultProbe:
		return DefaultProbe
	case string(StampKernel):
		return string(StampKernel)
	case string(StampUser):
		return string(StampUser)
	case string(CauseTimeout):
		return string(CauseTimeout)
	default:
		return string(q)
	}
}

// digits reads a number of at most n digits, n < 20, without a sign.
func (s *scanner) digits(n int) uint64 {
	i, u := 0, uint64(0)
	for i < len(s.rest) && s.rest[i]-'0' <= 9 {
		u = u*10 + uint64(s.rest[i]-'0')
		i++
	}
	if i == 0 || i > n || i > 1 && s.rest[0] == '0' {
		s.fail()
		return 0
	}
	s.rest = s.rest[i:]
	return u
}

func (s *scanner) int() int { return int(s.digits(9)) }

// float reads a number without sign and exponent, of at most 15 digits: both u
// and pow are exact in a float64, so the one division rounds as it should.
func (s *scanner) float() float64 {
	u, pow := s.digits(10), 1.0
	if !s.skip(`.`) {
		return float64(u)
	}
	n := 0
	for n < len(s.rest) && n < 5 && s.rest[n]-'0' <= 9 {
		u, pow = u*10+uint64(s.rest[n]-'0'), pow*10
		n++
	}
	if n == 0 {
		s.fail()
		return 0
	}
	s.rest = s.rest[n:]
	return float64(u) / pow
}

// rtts reads the rest of a list of them, about n.
func (s *scanner) rtts(n int) RTTs {
	t := make(RTTs, 0, min(n, MaxPackets))
	for {
		if s.skip(`null`) {
			t = append(t, 0)
		} else {
			t = append(t, s.float())
		}
		if !s.skip(`,`) {
			s.literal(`]`)
			return t
		}
	}
}
