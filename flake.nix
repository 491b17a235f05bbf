{
  description = "xtcp2-agent: eBPF-assisted TCP observability";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" ];
      forSystems = f: nixpkgs.lib.genAttrs systems (system: f nixpkgs.legacyPackages.${system});

      # The compiler's own LLVM: bpf-linker must have the same to read its bitcode.
      llvmOf = pkgs: pkgs.rustc.llvmPackages.libllvm;
      librarySource = pkgs: pkgs.rustPlatform.rustLibSrc;

      bpfLinker =
        pkgs:
        let
          llvm = llvmOf pkgs;
        in
        pkgs.rustPlatform.buildRustPackage (finalAttrs: {
          pname = "bpf-linker";
          # The version that xtask/src/bpf_linker.rs asks for.
          version = "0.13.0";
          src = pkgs.fetchCrate {
            inherit (finalAttrs) pname version;
            hash = "sha256-h5EZ5CrreJn0WJD6wXduis5M4k2ylioOiQv8F9dqQ1Q=";
          };
          cargoLock.lockFile = "${finalAttrs.src}/Cargo.lock";
          buildNoDefaultFeatures = true;
          buildFeatures = [ "llvm-${nixpkgs.lib.versions.major llvm.version}" ];
          env.LLVM_PREFIX = nixpkgs.lib.getLib llvm;
          # Its tests want LLVM's tools and a nightly.
          doCheck = false;
          meta.mainProgram = "bpf-linker";
        });

      agent =
        pkgs:
        let
          vendored = lockFile: pkgs.rustPlatform.importCargoLock { inherit lockFile; };
        in
        pkgs.rustPlatform.buildRustPackage {
          pname = "xtcp2-agent";
          version = (fromTOML (builtins.readFile ./Cargo.toml)).workspace.package.version;
          src = self;
          # build-std resolves the library's own lock file, too.
          cargoDeps = pkgs.symlinkJoin {
            name = "xtcp2-agent-vendored";
            paths = [
              (vendored ./Cargo.lock)
              (vendored "${librarySource pkgs}/Cargo.lock")
            ];
          };
          nativeBuildInputs = [ (bpfLinker pkgs) pkgs.glibc.bin pkgs.pkg-config ];
          # The Kafka client's.
          buildInputs = [ pkgs.openssl pkgs.zlib ];
          # Where xtask finds the source of the compiler's core: nixpkgs does not put it into the sysroot.
          env.RUST_SRC_PATH = librarySource pkgs;
          buildPhase = ''
            runHook preBuild
            cargo run --package xtask -- build-ebpf
            runHook postBuild
          '';
          # Whole-program tests need root and the host's kernel: `cargo xtask test`.
          doCheck = false;
          installPhase = ''
            runHook preInstall
            install -D -m 0755 target/release/xtcp2-agent -t $out/bin
            install -D -m 0644 deploy/systemd/xtcp2-agent.service -t $out/lib/systemd/system
            substituteInPlace $out/lib/systemd/system/xtcp2-agent.service \
              --replace-fail /usr/local/bin/xtcp2-agent $out/bin/xtcp2-agent
            runHook postInstall
          '';
          meta = {
            description = "eBPF-assisted TCP observability: records of every network namespace, and change events";
            license = with nixpkgs.lib.licenses; [ mit asl20 ];
            mainProgram = "xtcp2-agent";
            platforms = nixpkgs.lib.platforms.linux;
          };
        };
    in
    {
      packages = forSystems (pkgs: {
        default = agent pkgs;
        bpf-linker = bpfLinker pkgs;
      });

      devShells = forSystems (pkgs: {
        default = pkgs.mkShell {
          packages = with pkgs; [
            (bpfLinker pkgs)
            cargo
            cargo-deny
            clippy
            glibc.bin # ldd
            iproute2
            nats-server
            python3
            rustc
            rustfmt
            strace
            util-linux
          ];
          RUST_SRC_PATH = librarySource pkgs;
        };
      });

      formatter = forSystems (pkgs: pkgs.nixfmt);
    };
}
