// nsqd as a program: its own one does not build as a module's package.
package main

import (
	"flag"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/nsqio/nsq/nsqd"
)

func main() {
	options := nsqd.NewOptions()
	flag.StringVar(&options.TCPAddress, "tcp-address", options.TCPAddress, "clients of the protocol")
	flag.StringVar(&options.HTTPAddress, "http-address", options.HTTPAddress, "statistics")
	flag.StringVar(&options.DataPath, "data-path", "", "folder for what does not fit into memory")
	flag.StringVar(&options.TLSCert, "tls-cert", "", "PEM certificate")
	flag.StringVar(&options.TLSKey, "tls-key", "", "PEM key")
	flag.StringVar(&options.TLSRootCAFile, "tls-root-ca-file", "", "PEM authorities of clients")
	flag.StringVar(&options.TLSClientAuthPolicy, "tls-client-auth-policy", "", "require-verify: clients have certificates")
	auth := flag.String("auth-http-address", "", "who says what a client may do")
	required := flag.Bool("tls-required", false, "clients must speak TLS")
	flag.Parse()
	// Not asked for, and on a port of its own otherwise.
	options.HTTPSAddress = "127.0.0.1:0"
	if *auth != "" {
		options.AuthHTTPAddresses = []string{*auth}
	}
	if *required {
		options.TLSRequired = nsqd.TLSRequiredExceptHTTP
	}
	server, err := nsqd.New(options)
	if err != nil {
		log.Fatal(err)
	}
	if err := server.LoadMetadata(); err != nil {
		log.Fatal(err)
	}
	if err := server.PersistMetadata(); err != nil {
		log.Fatal(err)
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		if err := server.Main(); err != nil {
			log.Fatal(err)
		}
	}()
	<-end
	// Puts on the disk what is in memory.
	server.Exit()
}
