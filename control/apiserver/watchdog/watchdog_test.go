package watchdog

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

// A dog barks when it has been armed for too long, and only then.
func TestBark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []time.Time
		dog := New(func(when time.Time) error { told = append(told, when); return nil }, nil)
		for range 3 { // armed and disarmed in time
			dog.Arm(time.Second)
			time.Sleep(999 * time.Millisecond)
			dog.Disarm()
			time.Sleep(time.Minute)
		}
		if len(told) != 0 {
			t.Fatalf("barked at %v though it was always disarmed in time", told)
		}
		dog.Arm(time.Second)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if len(told) != 1 || !told[0].Equal(longAgo) {
			t.Fatalf("after the time: %v, want one deadline in the past", told)
		}
		dog.Disarm()
		if len(told) != 2 || !told[1].IsZero() {
			t.Fatalf("after disarming: %v, want the deadline taken away", told)
		}
		dog.Arm(time.Second)
		dog.Disarm()
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(told) != 2 {
			t.Fatalf("barked after it was disarmed: %v", told)
		}
	})
}

// A client that does not read is let go, over HTTP/1 and HTTP/2 alike.
func TestClientThatDoesNotRead(t *testing.T) {
	for _, version := range []int{1, 2} {
		ended := make(chan error, 1)
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			dog := New(http.NewResponseController(w).SetWriteDeadline, nil)
			_ = http.NewResponseController(w).Flush() // the answer has begun, however busy the machine is
			piece := make([]byte, 1<<20)
			for range 1000 { // more than all buffers take
				dog.Arm(50 * time.Millisecond)
				_, err := w.Write(piece)
				dog.Disarm()
				if err != nil {
					ended <- err
					return
				}
			}
			ended <- nil
		}))
		s.EnableHTTP2 = version == 2
		s.StartTLS()
		answer, err := s.Client().Get(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		if answer.ProtoMajor != version {
			t.Errorf("HTTP/%d, want %d", answer.ProtoMajor, version)
		}
		select {
		case err := <-ended:
			if err == nil {
				t.Errorf("HTTP/%d: all was written to a client that does not read", version)
			}
		case <-time.After(time.Minute):
			t.Errorf("HTTP/%d: the write does not end", version)
		}
		_, _ = io.CopyN(io.Discard, answer.Body, 1)
		_ = answer.Body.Close()
		s.CloseClientConnections()
		s.Close()
	}
}
