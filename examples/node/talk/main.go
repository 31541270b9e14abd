// Command talk is both ends of the connections that the demonstration of weir-agent
// makes: it answers on ports, tries to connect, or holds a connection and says whether
// it carries anything.
//
//	talk serve PORT...
//	talk connect ADDRESS
//	talk hold ADDRESS
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// patience is how long it waits for an answer.
const patience = time.Second

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: talk serve PORT... | talk connect ADDRESS | talk hold ADDRESS")
	}
	switch args[0] {
	case "serve":
		ended := make(chan error)
		for _, port := range args[1:] {
			l, err := net.Listen("tcp", ":"+port)
			if err != nil {
				return err
			}
			go func() { ended <- serve(l) }()
		}
		return <-ended
	case "connect":
		conn, err := net.DialTimeout("tcp", args[1], patience)
		if err != nil {
			return errors.New("no answer")
		}
		defer conn.Close() //nolint:errcheck // what matters was said
		_, err = exchange(conn)
		return err
	}
	return hold(args[1])
}

func serve(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close() //nolint:errcheck // what matters was said
			_, _ = io.Copy(conn, conn)
		}()
	}
}

// exchange sends a line and returns what comes back.
func exchange(conn net.Conn) (string, error) {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintln(conn, "hello"); err != nil {
		return "", err
	}
	return bufio.NewReader(conn).ReadString('\n')
}

// hold exchanges lines until one gets lost.
func hold(address string) error {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return errors.New("no answer")
	}
	defer conn.Close() //nolint:errcheck // what matters was said
	begin := time.Now()
	for n := 0; ; n++ {
		sent := time.Now()
		if _, err := exchange(conn); err != nil {
			fmt.Printf("it carried %d lines in %.1f seconds, and then nothing more\n", n, sent.Sub(begin).Seconds())
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
}
