# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_pyrycode_relay_global_optspecs
    string join \n config= h/help V/version
end

function __fish_pyrycode_relay_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_pyrycode_relay_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_pyrycode_relay_using_subcommand
    set -l cmd (__fish_pyrycode_relay_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c pyrycode-relay -n "__fish_pyrycode_relay_needs_command" -l config -d 'Configuration file [default: /etc/pyrycode-relay/relay.toml if it exists, else built-in defaults]' -r -F
complete -c pyrycode-relay -n "__fish_pyrycode_relay_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c pyrycode-relay -n "__fish_pyrycode_relay_needs_command" -s V -l version -d 'Print version'
complete -c pyrycode-relay -n "__fish_pyrycode_relay_needs_command" -f -a "check" -d 'Check a configuration and say everything that is wrong with it'
complete -c pyrycode-relay -n "__fish_pyrycode_relay_needs_command" -f -a "probe" -d 'Send frames through a running relay, as a real binary and a real phone, and judge what comes back'
complete -c pyrycode-relay -n "__fish_pyrycode_relay_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c pyrycode-relay -n "__fish_pyrycode_relay_using_subcommand check" -l config -d 'Configuration file [default: /etc/pyrycode-relay/relay.toml if it exists, else built-in defaults]' -r -F
complete -c pyrycode-relay -n "__fish_pyrycode_relay_using_subcommand check" -l print -d 'Print the effective configuration as TOML, defaults included'
complete -c pyrycode-relay -n "__fish_pyrycode_relay_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c pyrycode-relay -n "__fish_pyrycode_relay_using_subcommand probe" -l count -d 'Frames to send each way' -r
complete -c pyrycode-relay -n "__fish_pyrycode_relay_using_subcommand probe" -l size -d 'Bytes in each frame, 72 to 16777216; more than 262144 only if the relay\'s session.max_frame allows it' -r
complete -c pyrycode-relay -n "__fish_pyrycode_relay_using_subcommand probe" -l server-id -d 'Claim this server-id instead of a random one; a relay with an access list takes no other' -r
complete -c pyrycode-relay -n "__fish_pyrycode_relay_using_subcommand probe" -l ca -d 'Verify a wss:// relay\'s certificate with those in this PEM file, instead of the system\'s' -r -F
complete -c pyrycode-relay -n "__fish_pyrycode_relay_using_subcommand probe" -l json -d 'Print the result as one JSON object'
complete -c pyrycode-relay -n "__fish_pyrycode_relay_using_subcommand probe" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c pyrycode-relay -n "__fish_pyrycode_relay_using_subcommand help; and not __fish_seen_subcommand_from check probe help" -f -a "check" -d 'Check a configuration and say everything that is wrong with it'
complete -c pyrycode-relay -n "__fish_pyrycode_relay_using_subcommand help; and not __fish_seen_subcommand_from check probe help" -f -a "probe" -d 'Send frames through a running relay, as a real binary and a real phone, and judge what comes back'
complete -c pyrycode-relay -n "__fish_pyrycode_relay_using_subcommand help; and not __fish_seen_subcommand_from check probe help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
