package config

import (
	"strings"
	"testing"
)

func TestQueueProblems(t *testing.T) {
	for text, want := range map[string]string{
		"queue: {backoff: [5m, 0s]}":                           "x.yaml:1:23: mail would be tried without a pause; write for example 5m",
		"queue: {double_bounces: postmaster}":                  `x.yaml:1:25: "postmaster" is no address; write for example postmaster@example.org`,
		"queue: {messages: -1}":                                "queue.messages is below zero",
		"queue: {octets: 40MiB}":                               "x.yaml:1:17: a mail of 52428800 octets, as submission takes it (message_size), would never be queued",
		"limits: {message_size: 1MiB}\nqueue: {octets: 40MiB}": "",
		"queue: {age: never}":                                  "queue.age wants a time",
		"queue: {warn: -1s, keep: -1s, age: 1d}":               "",
	} {
		_, err := Parse("x.yaml", text, nil)
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", text, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}
