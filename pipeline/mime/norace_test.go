//go:build !race

package mime

const race = false
