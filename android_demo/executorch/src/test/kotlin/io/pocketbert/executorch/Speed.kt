/* Measures ExecuTorch, as io.pocketbert.host.speed describes: the folder of a bundle, a scratch folder, a text. */
package io.pocketbert.executorch

import io.pocketbert.host.speed
import org.pytorch.executorch.Module
import java.io.File

fun main(arguments: Array<String>) {
    val (bundle, scratch, text) = arguments
    runCatching { Module.load("/dev/null") } // loads the library, as an app has it loaded
    speed(ExecuTorchEngine.kind(2), File(bundle), File(scratch), text)
}
