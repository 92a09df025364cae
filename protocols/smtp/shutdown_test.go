package smtp_test

import (
	"context"
	"net"
	"strings"
	"testing"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

// shutdown begins to shut down and returns how to cut it short, and its end.
func (d *door) shutdown() (cut context.CancelFunc, done chan error) {
	ctx, cancel := context.WithCancel(context.Background())
	done = make(chan error, 1)
	go func() { done <- d.server.Shutdown(ctx) }() // ends when the connections have
	return cancel, done
}

func TestShutdownOfIdleConnections(t *testing.T) {
	d := open(t, nil)
	idle, greeted, begunOne := d.dial(), d.dial(), d.dial()
	idle.talk("S: 220 *\n")
	greeted.talk(greeting)
	begunOne.talk(begun)
	cut, done := d.shutdown()
	defer cut()
	for _, c := range []*client{idle, greeted, begunOne} {
		c.talk("S: 421 4.3.2 shutting down, please try again later\nS: EOF\n")
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestShutdownLetsMessagesFinish(t *testing.T) {
	for _, how := range []string{"C: DATA\nS: 354 *\nC: half\n", `R: "BDAT 100\r\n` + strings.Repeat("x", 100) + `"` + "\nS: 250 *\n"} {
		d := open(t, nil)
		idle, busy := d.dial(), d.dial()
		busy.talk(begun + how)
		idle.talk(greeting)
		cut, done := d.shutdown()
		idle.talk("S: 421 *\nS: EOF\n") // now it has begun
		end := "C: the other half\nC: .\n"
		if strings.Contains(how, "BDAT") {
			end = "C: BDAT 0 LAST\n"
		}
		busy.talk(end + "S: 250 2.0.0 accepted as id1\nS: 421 4.3.2 *\nS: EOF\n")
		if d.store.all() != "me" {
			t.Error("not delivered")
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		cut()
	}
}

func TestShutdownBreaksOffWhatDoesNotFinish(t *testing.T) {
	t.Run("a message that does not come", func(t *testing.T) {
		d := open(t, nil)
		c := d.dial()
		c.talk(begun + "C: DATA\nS: 354 *\nC: half\n")
		cut, done := d.shutdown()
		cut()
		c.talk("S: 421 4.3.2 shutting down, please try again later\nS: EOF\n")
		<-done
		if d.store.all() != "" {
			t.Error("delivered")
		}
		if r, _ := d.journal.Last(); r == nil || r.End != "aborted" {
			t.Errorf("record %+v", r)
		}
	})
	t.Run("a stage that hangs", func(t *testing.T) {
		asked := make(chan struct{})
		d := open(t, func(d *door) {
			d.steps = []pipeline.Step{pipelinetest.Step("hangs", pipelinetest.Stage{
				Looks: pipeline.Reads{Input: pipeline.InputBody, Waits: true},
				Says: func(ctx context.Context, _ pipeline.View) (pipeline.Result, error) {
					close(asked)
					<-ctx.Done()
					return pipeline.Result{}, ctx.Err()
				},
			})}
		})
		c := d.dial()
		c.talk(begun + "C: DATA\nS: 354 *\nC: whole\nC: .\n")
		<-asked
		cut, done := d.shutdown()
		cut()
		c.talk("S: 421 4.3.2 shutting down, please try again later\nS: EOF\n")
		<-done
		if d.store.all() != "" {
			t.Error("delivered")
		}
	})
	t.Run("a delivery under way", func(t *testing.T) {
		d := open(t, func(d *door) { d.store.hold, d.store.entered = make(chan struct{}), make(chan struct{}) })
		c := d.dial()
		c.talk(begun + "C: DATA\nS: 354 *\nC: whole\nC: .\n")
		<-d.store.entered
		cut, done := d.shutdown()
		cut()
		close(d.store.hold)
		c.talk("S: 250 2.0.0 accepted as id1\nS: 421 *\nS: EOF\n") // it was ours already
		<-done
		if d.store.all() != "me" {
			t.Error("not delivered")
		}
	})
}

func TestShutdownOfNothing(t *testing.T) {
	d := open(t, nil)
	if err := d.server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := d.server.Serve(d.l); err != nil {
		t.Errorf("Serve after Shutdown: %v", err)
	}
	if c, err := net.Dial("tcp", d.l.Addr().String()); err == nil {
		_ = c.Close()
		t.Error("somebody listens after Shutdown")
	}
}
