package program

import (
	"context"
	"net"
	"net/netip"

	"sluice/cmd/sluice/program/config"
	"sluice/pipeline"
)

// newResolver returns the system's resolver.
func newResolver(config.Resolver) (pipeline.Resolver, error) { return &system{}, nil }

type system struct{ r net.Resolver }

func (s *system) LookupAddr(ctx context.Context, name string) ([]netip.Addr, error) {
	return s.r.LookupNetIP(ctx, "ip", name)
}
func (s *system) LookupTXT(ctx context.Context, name string) ([]string, error) {
	return s.r.LookupTXT(ctx, name)
}
func (s *system) LookupPTR(ctx context.Context, a netip.Addr) ([]string, error) {
	return s.r.LookupAddr(ctx, a.String())
}
func (s *system) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	return s.r.LookupMX(ctx, name)
}
