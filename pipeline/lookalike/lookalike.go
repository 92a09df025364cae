// Package lookalike says what looks alike to a reader: letters, domains and names of people.
package lookalike
