// Package e2e tests the built programs as their users meet them: real mosquitto
// processes, real echo requests on loopback, a real Elasticsearch, and nothing of
// the programs' insides. `go test -short` leaves it out.
package e2e
